#!/usr/bin/env python3
"""bench_server.py - a load generator for servers with OpenAI's chat interface.

    bench/bench_server.py --url http://127.0.0.1:8080/v1 --clients 1,4,16 --tokens 64 --rounds 3
    bench/bench_server.py --serve "jang serve --model M --port {port}" \\
                          --serve "python -m mlx_lm server --model M --port {port}"

Each client holds one stream at a time, with a prompt of its own. A line for each number of clients:
tokens a second over all streams and the whole time, prompts included; tokens a second while all
streams run (from the last first token to the first end); time to the first token (median, largest);
time between tokens (median, 99th percentile). Works with any such server, so that servers can be
compared: with --serve each is started, measured and stopped in turn. Run it on a machine that does
nothing else. Plain Python 3.
"""

import argparse
import http.client
import json
import shlex
import socket
import statistics
import subprocess
import threading
import time
import urllib.parse


def stream(url, body):
    """Returns (time to first token, times of the pieces, tokens)."""
    at = urllib.parse.urlsplit(url)
    c = http.client.HTTPConnection(at.hostname, at.port, timeout=600)
    start = time.perf_counter()
    c.request("POST", at.path.rstrip("/") + "/chat/completions", json.dumps(body),
              {"Content-Type": "application/json"})
    r = c.getresponse()
    if r.status != 200:
        raise RuntimeError(f"{r.status}: {r.read()[:300]}")
    times, usage = [], None
    for line in r:
        if not line.startswith(b"data: ") or line.startswith(b"data: [DONE]"):
            continue
        data = json.loads(line[6:])
        usage = data.get("usage") or usage
        delta = data["choices"][0]["delta"] if data.get("choices") else {}
        if delta.get("content") or delta.get("reasoning_content") or delta.get("reasoning"):
            times.append(time.perf_counter())
    c.close()
    tokens = usage["completion_tokens"] if usage else len(times)
    return times[0] - start if times else 0, times, tokens


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


def together(results):
    """Tokens a second between the last stream's first token and the first stream's last."""
    begin = max(r[1][0] for r in results)
    end = min(r[1][-1] for r in results)
    n = sum(sum(begin < t <= end for t in r[1]) * r[2] / len(r[1]) for r in results)
    return n / (end - begin) if end > begin else float("nan")


def measure(a):
    load(a, 1, 99)
    print(f"{'clients':>7} {'tokens/s':>9} {'together':>9} {'first s':>8} {'largest':>8} {'gap ms':>7} "
          f"{'p99 ms':>7}")
    for n in [int(word) for word in a.clients.split(",")]:
        rounds = [load(a, n, i) for i in range(a.rounds)]
        speed = statistics.median(sum(r[2] for r in results) / s for results, s in rounds)
        steady = statistics.median(together(results) for results, _ in rounds)
        firsts = [r[0] for results, _ in rounds for r in results]
        gaps = [y - x for results, _ in rounds for r in results for x, y in zip(r[1], r[1][1:])]
        print(f"{n:7} {speed:9.1f} {steady:9.1f} {statistics.median(firsts):8.3f} {max(firsts):8.3f} "
              f"{1000 * percentile(gaps, 0.5):7.1f} {1000 * percentile(gaps, 0.99):7.1f}", flush=True)


def answers(url):
    at = urllib.parse.urlsplit(url)
    try:
        c = http.client.HTTPConnection(at.hostname, at.port, timeout=2)
        c.request("GET", "/health")
        return c.getresponse().status == 200
    except OSError:
        return False


def serve_and_measure(a, command):
    with socket.create_server(("127.0.0.1", 0)) as s:
        port = s.getsockname()[1]
    a.url = f"http://127.0.0.1:{port}/v1"
    server = subprocess.Popen(shlex.split(command.format(port=port)), stdout=subprocess.DEVNULL,
                              stderr=subprocess.DEVNULL)
    try:
        while not answers(a.url):
            if server.poll() is not None:
                raise SystemExit(f"ended at once: {command}")
            time.sleep(0.2)
        print(command)
        measure(a)
    finally:
        server.terminate()
        server.wait()


def main():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("--url", default="http://127.0.0.1:8080/v1")
    p.add_argument("--serve", action="append", default=[], metavar="COMMAND",
                   help="start this server, with {port} replaced; may be given several times")
    p.add_argument("--model", default="any")
    p.add_argument("--clients", default="1,4,16")
    p.add_argument("--tokens", type=int, default=64, help="of each answer")
    p.add_argument("--words", type=int, default=40, help="of each prompt, about")
    p.add_argument("--rounds", type=int, default=3)
    a = p.parse_args()
    if not a.serve:
        measure(a)
    for command in a.serve:
        serve_and_measure(a, command)


main()
