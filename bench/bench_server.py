#!/usr/bin/env python3
"""bench_server.py - a load generator for servers with OpenAI's chat interface.

    bench/bench_server.py --url http://127.0.0.1:8080/v1 --clients 1,4,16 --tokens 64 --rounds 3
    bench/bench_server.py --serve "jang serve --model M --port {port}" \\
                          --serve "python -m mlx_lm server --model M --port {port}"

Each client holds one stream at a time, with a prompt of its own. A line for each number of clients:
tokens a second over all streams and the whole time, prompts included; tokens a second while all
streams run (from the last first token to the first end); time to the first token (median, largest);
time between tokens (median, 99th percentile). Works with any such server, so that servers can be
compared: with --serve each is started, measured and stopped in turn. With --arrive N a prompt of about
N tokens comes while the largest number of clients have streams running: how long it keeps them waiting,
and when it gets its own first token; then alone, cold and once more. Run it on a machine that does
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


def stream_usage(url, body):
    at = urllib.parse.urlsplit(url)
    c = http.client.HTTPConnection(at.hostname, at.port, timeout=600)
    c.request("POST", at.path.rstrip("/") + "/chat/completions",
              json.dumps({**body, "stream": False, "max_tokens": 1}),
              {"Content-Type": "application/json"})
    return json.loads(c.getresponse().read())["usage"]


def stream(url, body, begun=None):
    """Returns (time to first token, times of the pieces, tokens); the first one's time is also put
    into begun at once."""
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
            if begun is not None and len(times) == 1:
                begun.append(times[0])
    c.close()
    tokens = usage["completion_tokens"] if usage else len(times)
    return times[0] - start if times else 0, times, tokens


SUBJECTS = ("a bicycle", "the sea", "bread", "a lighthouse", "winter", "a market town", "chess", "a violin",
            "volcanoes", "a garden", "the moon", "trains", "honey bees", "a library", "rain", "mountains")
QUESTIONS = ("Explain to a child how {} came to be what it is today.", "Write a letter about {} to a friend.",
             "What are common mistakes about {}?", "Describe a day that has to do with {}.")


def messages(seed, words, plain=False):
    """With a system text, since some servers put in the template's own and some do not."""
    question = QUESTIONS[seed // 16 % 4].format(SUBJECTS[seed % 16])
    return [{"role": "system", "content": "You answer at length."},
            {"role": "user", "content": question if plain else prompt(seed, words)}]


def prompt(seed, words):
    text = " ".join(f"item{(seed * 7919 + i * 104729) % 9973}" for i in range(words))
    return f"Request {seed}. Here is a list: {text}. Tell a story about it."


def load(arguments, n_clients, round_number):
    results, errors = [], []

    def client(i):
        body = {"model": arguments.model, "temperature": arguments.temperature, "seed": i,
                "max_tokens": arguments.tokens, "stream": True, "stream_options": {"include_usage": True}, "ignore_eos": True,
                "messages": messages(round_number * 1000 + i, arguments.words, arguments.plain)}
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


def long_body(a, seed):
    """A prompt of a.arrive tokens, going by what one of 200 words had."""
    body = {"model": a.model, "temperature": 0, "max_tokens": 4, "stream": True,
            "stream_options": {"include_usage": True}, "ignore_eos": True}
    if not a.token_share:
        probe = {**body, "messages": messages(77, 200)}
        a.token_share = stream_usage(a.url, probe)["prompt_tokens"] / 200
    words = int(a.arrive / a.token_share)
    return {**body, "messages": messages(seed, words)}


def arrive(a, n_clients):
    """A long prompt among streams, then alone, cold and warm."""
    running, begun, first, longs = [], [], [], []
    body = long_body(a, 555000)

    def client(i):
        short = {"model": a.model, "temperature": 0, "max_tokens": a.tokens * 6, "stream": True,
                 "stream_options": {"include_usage": True}, "ignore_eos": True,
                 "messages": messages(4000 + i, 5)}
        running.append(stream(a.url, short, begun))
    threads = [threading.Thread(target=client, args=[i]) for i in range(n_clients)]
    for t in threads:
        t.start()
    while len(begun) < n_clients:
        time.sleep(0.01)
    time.sleep(1)
    start = time.perf_counter()
    longs.append(stream(a.url, body, first))
    for t in threads:
        t.join()
    gaps = [(y, y - x) for r in running for x, y in zip(r[1], r[1][1:])]
    usual = percentile([g for at, g in gaps if at < start], 0.5)
    held = [g for at, g in gaps if start <= at <= first[0]]
    cold, warm = [stream(a.url, long_body(a, seed))[0] for seed in (556000, 556000)]
    print(f"{n_clients} streams, {1000 * usual:.1f} ms between tokens; while a prompt of about {a.arrive} "
          f"tokens comes: median {1000 * percentile(held, 0.5):.1f}, 99th percentile "
          f"{1000 * percentile(held, 0.99):.1f} ({percentile(held, 0.99) / usual:.1f} times the usual "
          f"median, {percentile(held, 0.99) / percentile(held, 0.5):.1f} times the present)\n"
          f"its first token: {longs[0][0]:.3f} s beside them, {cold:.3f} s alone, {warm:.3f} s once more "
          f"({100 * warm / cold:.1f} %)", flush=True)


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
    if a.arrive:
        arrive(a, max(int(word) for word in a.clients.split(",")))


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
    p.add_argument("--plain", action="store_true",
                   help="ask short questions, each another, instead of giving lists of words")
    p.add_argument("--temperature", type=float, default=0)
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--arrive", type=int, default=0, metavar="N",
                   help="also let a prompt of N tokens come while all clients have streams")
    a = p.parse_args()
    a.token_share = 0
    if not a.serve:
        measure(a)
    for command in a.serve:
        serve_and_measure(a, command)


main()
