#!/usr/bin/env python3
"""soak.py - a server under everything that clients do wrong, for as long as one likes.

    tests/server/soak.py --seconds 3600                     SmolLM2
    tests/server/soak.py --seconds 60 --model DIR --kv-budget 200K --jang J

Many clients at once, each doing one random thing after the other: whole and streamed answers in
each dialect, aborts at random moments, malformed bodies and heads, floods over the queue's limit,
prompts that do not fit, on a key-value budget for two or three sequences and a disk cache. Checked:
no 5xx, no answer that cannot be read, memory and open files do not grow from the second quarter of
the time to the last, one greedy answer stays the same throughout, the server ends with status 0 and
has written nothing to stderr. SEED in the environment makes the choices repeat. Plain Python 3.
"""

import argparse
import collections
import http.client
import json
import os
import pathlib
import random
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time

import serving

WORDS = "the small boat sailed past an old grey house where nobody had lived for many years".split()
SCHEMA = {"type": "object", "properties": {"name": {"type": "string", "maxLength": 20},
                                           "n": {"type": "integer"}}, "required": ["name", "n"]}
TOOL = {"type": "function", "function": {"name": "look", "parameters": SCHEMA}}
FIXED = {"messages": [{"role": "user", "content": "Name a colour."}], "temperature": 0,
         "max_tokens": 12}


class Client:
    def __init__(self, soak, number):
        self.soak, self.random = soak, random.Random(soak.seed * 1000 + number)

    def text(self, most=60):
        n = self.random.randint(1, most)
        return " ".join(self.random.choice(WORDS) for _ in range(n))

    # ---- One exchange ----

    def ask(self, method, path, body, stop_after=None):
        """Sends a request and reads the answer, or goes away after so many bytes (0: at once)."""
        c = http.client.HTTPConnection("127.0.0.1", self.soak.port, timeout=600)
        try:
            data = body if isinstance(body, (bytes, type(None))) else json.dumps(body)
            c.request(method, path, data, {"Content-Type": "application/json"})
            if stop_after == 0:
                time.sleep(self.random.random() * 0.3)
                return
            r = c.getresponse()
            data = r.read(stop_after)
            self.soak.saw(r.status, path, data)
            if stop_after is None:
                self.check(r, path, data)
        finally:
            c.close()

    def check(self, r, path, data):
        kind = r.getheader("Content-Type") or ""
        if "json" in kind and "ndjson" not in kind:
            json.loads(data)
        elif "ndjson" in kind:
            for line in data.splitlines():
                json.loads(line)
        elif "event-stream" in kind:
            for line in data.splitlines():
                if line.startswith(b"data: ") and line != b"data: [DONE]":
                    if "error" in (event := json.loads(line[6:])) and event["error"]:
                        self.soak.fail(f"{path}: {line[:200]}")

    # ---- What clients do ----

    def sampling(self):
        return {"temperature": self.random.choice([0, 0.8]), "seed": self.random.randint(0, 9),
                "stream": self.random.random() < 0.6}

    def chat_body(self):
        body = {"messages": [{"role": "system", "content": "You help."},
                             {"role": "user", "content": self.text()}],
                "max_tokens": self.random.randint(1, 40), **self.sampling()}
        extra = self.random.randint(0, 7)
        if extra == 0:
            body["response_format"] = {"type": "json_schema", "json_schema": {"schema": SCHEMA}}
        elif extra == 1:
            body.update(tools=[TOOL], tool_choice="required")
        elif extra == 2:
            body.update(n=3, logprobs=True, top_logprobs=3)
        return body

    def request(self):
        kind = self.random.randint(0, 6)
        n = self.random.randint(1, 30)
        if kind == 0:
            return "/v1/completions", {"prompt": [self.text(), self.text()], "max_tokens": n,
                                       "logprobs": 2, "echo": True, **self.sampling()}
        if kind == 1:
            return "/v1/responses", {"input": self.text(), "max_output_tokens": n,
                                     **self.sampling()}
        if kind == 2:
            return "/v1/messages", {"messages": [{"role": "user", "content": self.text()}],
                                    "max_tokens": n, "stream": self.random.random() < 0.6}
        if kind == 3:
            return "/api/chat", {"messages": [{"role": "user", "content": self.text()}],
                                 "stream": self.random.random() < 0.6,
                                 "options": {"num_predict": n}}
        if kind == 4:
            return "/v1/embeddings", {"input": [self.text(), self.text()]}
        return "/v1/chat/completions", self.chat_body()

    def whole(self):
        self.ask("POST", *self.request())

    def abort(self):
        path, body = self.request()
        body["stream"] = True
        self.ask("POST", path, body, stop_after=self.random.choice([0, 0, 1, 200, 2000]))

    def broken_body(self):
        path, body = self.request()
        text = bytearray(json.dumps(body).encode())
        for _ in range(self.random.randint(1, 4)):
            text[self.random.randrange(len(text))] = self.random.randrange(256)
        self.ask("POST", path, bytes(text))

    def broken_head(self):
        heads = [b"GET / HTTP/9.9\r\n\r\n", b"\x16\x03\x01\x02\x00\x01", b"POST /v1/chat/comple",
                 b"POST /v1/chat/completions HTTP/1.1\r\nContent-Length: 99999999999\r\n\r\n",
                 b"POST /v1/chat/completions HTTP/1.1\r\nContent-Length: 50\r\n\r\n{\"mess",
                 b"POST /v1/chat/completions HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
                 b"GET /" + b"a" * 70000 + b" HTTP/1.1\r\n\r\n",
                 b"GET /health HTTP/1.1\r\n\r\n" * 20]
        with socket.create_connection(("127.0.0.1", self.soak.port), timeout=60) as s:
            s.sendall(self.random.choice(heads))
            time.sleep(self.random.random() * 0.2)

    def too_long(self):
        self.ask("POST", "/v1/completions", {"prompt": self.text(2) * 4000, "max_tokens": 5})

    def flood(self):
        """More at once than may wait; most leave before they are answered."""
        sockets = []
        body = json.dumps({**self.chat_body(), "stream": True}).encode()
        head = b"POST /v1/chat/completions HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % len(body)
        for _ in range(40):
            s = socket.create_connection(("127.0.0.1", self.soak.port), timeout=600)
            s.sendall(head + body)
            sockets.append(s)
        for s in sockets:
            if self.random.random() < 0.3:
                first = s.recv(4096)
                if first:
                    self.soak.saw(int(first.split()[1]), "flood", first)
            s.close()

    def look(self):
        path = self.random.choice(["/health", "/metrics", "/slots", "/v1/models", "/v1/cache", "/",
                                   "/nothing"])
        self.ask("GET", path, None)

    def clear(self):
        self.ask("DELETE", "/v1/cache", None)

    def fixed(self):
        c = http.client.HTTPConnection("127.0.0.1", self.soak.port, timeout=600)
        c.request("POST", "/v1/chat/completions", json.dumps(FIXED))
        r = c.getresponse()
        data = r.read()
        c.close()
        self.soak.saw(r.status, "fixed", data)
        if r.status == 200:
            self.soak.same(json.loads(data)["choices"][0]["message"]["content"])

    def run(self):
        acts = [(self.whole, 30), (self.abort, 25), (self.broken_body, 15), (self.broken_head, 10),
                (self.look, 8), (self.fixed, 6), (self.too_long, 3), (self.flood, 2),
                (self.clear, 1)]
        while time.monotonic() < self.soak.end:
            act = self.random.choices([a for a, _ in acts], [w for _, w in acts])[0]
            try:
                act()
            except (ConnectionError, http.client.HTTPException, TimeoutError) as e:
                self.soak.lost(act.__name__, e)
            except Exception as e:
                self.soak.fail(f"{act.__name__}: {e!r}")


class Soak:
    def __init__(self, arguments):
        self.o, self.seed = arguments, int(os.environ.get("SEED", time.time()))
        self.lock = threading.Lock()
        self.statuses, self.failures = collections.Counter(), []
        self.answer, self.samples = None, []

    def fail(self, text):
        with self.lock:
            self.failures.append(text)
            print("FAILED", text[:400], flush=True)

    def saw(self, status, path, data):
        with self.lock:
            self.statuses[status] += 1
        if status >= 500:
            self.fail(f"{path}: {status} {data[:200]}")

    def lost(self, what, e):
        """Refusing a head may close the connection before the client has sent all of it."""
        with self.lock:
            self.statuses[f"closed in {what}"] += 1
        if self.server.poll() is not None:
            self.end = 0
            self.fail(f"the server has gone: {e!r}")

    def same(self, text):
        with self.lock:
            self.answer = self.answer or text
            if text == self.answer:
                return
        self.fail(f"{text!r} instead of {self.answer!r}")

    def sample(self):
        pages = int(pathlib.Path(f"/proc/{self.server.pid}/statm").read_text().split()[1])
        files = len(os.listdir(f"/proc/{self.server.pid}/fd"))
        self.samples.append((pages * os.sysconf("SC_PAGE_SIZE") / 1e6, files))
        return self.samples[-1]

    def start(self, folder, errors):
        o = self.o
        options = ["--parallel", "4", "--queue", "8", "--kv-budget", o.kv_budget, "--context", "448",
                   "--disk-cache", folder, "--disk-cache-size", o.disk, "--prefill-chunk", "64",
                   "--kv-type", o.kv_type]
        self.server = subprocess.Popen([o.jang, "serve", "--model", str(o.model), "--port", "0",
                                        *options], stdout=subprocess.PIPE, stderr=errors, text=True)
        for line in self.server.stdout:
            if "http://127.0.0.1:" in line:
                self.port = int(line.split("http://127.0.0.1:")[1].split("/")[0].split()[0])
                return
        raise SystemExit("the server did not start")

    def drain(self):
        for _ in self.server.stdout:
            pass

    def watch(self):
        begun = time.monotonic()
        self.end = begun + self.o.seconds
        clients = [threading.Thread(target=Client(self, i).run) for i in range(self.o.clients)]
        for t in [*clients, threading.Thread(target=self.drain, daemon=True)]:
            t.start()
        told = 0
        while time.monotonic() < self.end and self.server.poll() is None:
            time.sleep(min(5, self.o.seconds / 40))
            mb, files = self.sample()
            if time.monotonic() - begun > told:
                told += max(60, self.o.seconds / 20)
                print(f"{time.monotonic() - begun:6.0f} s  {mb:.0f} MB  {files} files  "
                      f"{dict(self.statuses)}", flush=True)
        for t in clients:
            t.join()

    def compare(self):
        """The second quarter of the time with the last."""
        n = len(self.samples)
        for i, what, slack in ((0, "MB resident", self.o.slack), (1, "open files", 20)):
            early = statistics.median(s[i] for s in self.samples[n // 4:n // 2])
            late = statistics.median(s[i] for s in self.samples[3 * n // 4:])
            print(f"{what}: {early:.1f}, then {late:.1f}")
            if late > early * 1.03 + slack:
                self.fail(f"{what} grew from {early:.1f} to {late:.1f}")

    def run(self):
        print(f"seed {self.seed}", flush=True)
        with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile("w+") as errors:
            self.start(folder, errors)
            self.watch()
            self.compare()
            self.server.terminate()
            if self.server.wait(60):
                self.fail(f"the server ended with status {self.server.returncode}")
            errors.seek(0)
            if text := errors.read():
                self.fail("on stderr: " + text[:4000])
        print(dict(self.statuses))
        print(f"{0 if self.failures else 1} passed, {1 if self.failures else 0} failed, 0 skipped")
        return bool(self.failures)


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--seconds", type=float, default=60)
    p.add_argument("--clients", type=int, default=12)
    p.add_argument("--model", help="default: SmolLM2")
    p.add_argument("--jang", default=serving.JANG)
    p.add_argument("--kv-budget", default="24M")
    p.add_argument("--kv-type", default="f16")
    p.add_argument("--disk", default="64M", help="most bytes on disk")
    p.add_argument("--slack", type=float, default=4, help="MB that may come besides 3%%")
    arguments = p.parse_args()
    arguments.model = arguments.model or serving.small_model()
    return Soak(arguments).run()


sys.exit(main())
