#!/usr/bin/env python3
"""bench_server.py - a load generator for servers with OpenAI's chat interface.

    bench/bench_server.py --url http://127.0.0.1:8080/v1 --clients 1,4,16 --tokens 64 --rounds 3

Each client holds one stream at a time, with a prompt of its own. A line for each number of clients:
tokens a second over all streams, time to the first token (median, largest), and time between tokens
(median, 99th percentile). Works with any such server, so that servers can be compared; run them in
turn on a machine that does nothing else. Plain Python 3.
"""

import argparse
import http.client
import json
import statistics
import threading
import time
import urllib.parse


def stream(url, body):
    """Returns (time to first token, gaps between pieces, tokens, seconds)."""
    at = urllib.parse.urlsplit(url)
    c = http.client.HTTPConnection(at.hostname, at.port, timeout=600)
    start = last = time.perf_counter()
    c.request("POST", at.path.rstrip("/") + "/chat/completions", json.dumps(body),
              {"Content-Type": "application/json"})
    r = c.getresponse()
    if r.status != 200:
        raise RuntimeError(f"{r.status}: {r.read()[:300]}")
    first, gaps, pieces, usage = None, [], 0, None
    for line in r:
        if not line.startswith(b"data: ") or line.startswith(b"data: [DONE]"):
            continue
        data = json.loads(line[6:])
        usage = data.get("usage") or usage
        delta = data["choices"][0]["delta"] if data.get("choices") else {}
        if delta.get("content") or delta.get("reasoning_content"):
            now = time.perf_counter()
            if first is None:
                first = now - start
            else:
                gaps.append(now - last)
            last, pieces = now, pieces + 1
    c.close()
    tokens = usage["completion_tokens"] if usage else pieces
    return first or 0, gaps, tokens, time.perf_counter() - start


def prompt(seed, words):
    text = " ".join(f"item{(seed * 7919 + i * 104729) % 9973}" for i in range(words))
    return f"Request {seed}. Here is a list: {text}. Tell a story about it."


def load(arguments, n_clients, round_number):
    results, errors = [], []

    def client(i):
        body = {"model": arguments.model, "temperature": 0, "max_tokens": arguments.tokens,
                "stream": True, "stream_options": {"include_usage": True}, "ignore_eos": True,
                "messages": [{"role": "user",
                              "content": prompt(round_number * 1000 + i, arguments.words)}]}
        try:
            results.append(stream(arguments.url, body))
        except Exception as e:
            errors.append(e)
    threads = [threading.Thread(target=client, args=[i]) for i in range(n_clients)]
    start = time.perf_counter()
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    if errors:
        raise errors[0]
    return results, time.perf_counter() - start


def percentile(values, share):
    values = sorted(values) or [0]
    return values[min(len(values) - 1, int(share * len(values)))]


def main():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("--url", default="http://127.0.0.1:8080/v1")
    p.add_argument("--model", default="any")
    p.add_argument("--clients", default="1,4,16")
    p.add_argument("--tokens", type=int, default=64, help="of each answer")
    p.add_argument("--words", type=int, default=40, help="of each prompt, about")
    p.add_argument("--rounds", type=int, default=3)
    a = p.parse_args()
    load(a, 1, 99)
    print(f"{'clients':>7} {'tokens/s':>9} {'first s':>8} {'largest':>8} {'gap ms':>7} {'p99 ms':>7}")
    for n in [int(word) for word in a.clients.split(",")]:
        rounds = [load(a, n, i) for i in range(a.rounds)]
        speed = statistics.median(sum(r[2] for r in results) / s for results, s in rounds)
        firsts = [r[0] for results, _ in rounds for r in results]
        gaps = [g for results, _ in rounds for r in results for g in r[1]]
        print(f"{n:7} {speed:9.1f} {statistics.median(firsts):8.3f} {max(firsts):8.3f} "
              f"{1000 * percentile(gaps, 0.5):7.1f} {1000 * percentile(gaps, 0.99):7.1f}", flush=True)


main()
