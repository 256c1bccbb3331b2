"""serving.py - a server on a small model for the tests: start, ask, look, stop."""

import http.client
import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import tempfile
import traceback

ROOT = pathlib.Path(__file__).resolve().parents[2]
JANG = os.environ.get("JANG", str(ROOT / "build/release/jang"))


def small_model():
    """SmolLM2 as JANG_4M, converted once for each build of the program."""
    gguf = os.environ.get("JANG_SMOLLM2") or subprocess.run(
        [ROOT / "scripts/fetch-model"], check=True, capture_output=True, text=True
    ).stdout.strip()
    folder = pathlib.Path(tempfile.gettempdir()) / f"jang-server-test-{os.getuid()}"
    model = folder / "smol"
    if not (model / "config.json").exists():
        folder.mkdir(exist_ok=True)
        subprocess.run(
            [JANG, "convert", "--model", gguf, "--profile", "JANG_4M", "--output", model, "--force"],
            check=True, capture_output=True,
        )
    return model


class Server:
    """A server of one's own; options as on the command line."""

    def __init__(self, model, *options, preexec=None):
        self.process = subprocess.Popen(
            [JANG, "serve", "--model", str(model), "--port", "0", *options],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=preexec,
        )
        self.ready = []
        for line in self.process.stdout:
            self.ready.append(line)
            if "claude" in line:
                break
        match = re.search(r"http://127.0.0.1:(\d+)", "".join(self.ready))
        if not match:
            raise RuntimeError(self.process.stderr.read())
        self.port = int(match.group(1))
        self.url = f"http://127.0.0.1:{self.port}"

    def stop(self, number=signal.SIGTERM):
        if self.process.poll() is None:
            self.process.send_signal(number)
        code = self.process.wait(timeout=60)
        self.process.stdout.close()
        self.process.stderr.close()
        return code

    def ask(self, method, path, body=None, headers=None, timeout=60):
        """Returns (status, headers, JSON or text)."""
        c = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        data = json.dumps(body) if isinstance(body, (dict, list)) else body
        c.request(method, path, data, headers or {})
        r = c.getresponse()
        text = r.read()
        c.close()
        kind = r.getheader("Content-Type") or ""
        is_json = "application/json" in kind and text
        return r.status, r.headers, json.loads(text) if is_json else text.decode()

    def post(self, path, **body):
        return self.ask("POST", path, body)

    def raw(self, data, wait=5, until=None):
        """Sends bytes on a connection of their own; returns what comes until it closes or pauses."""
        with socket.create_connection(("127.0.0.1", self.port)) as s:
            s.settimeout(wait)
            s.sendall(data)
            return read_all(s, until)

    def stream(self, path, body):
        """The events of an SSE stream as (event, data) pairs; data parsed unless it is [DONE]."""
        _, headers, text = self.ask("POST", path, body)
        assert headers["Content-Type"] == "text/event-stream", text
        out = []
        for block in text.split("\n\n"):
            event = data = None
            for line in block.split("\n"):
                if line.startswith("event: "):
                    event = line[7:]
                elif line.startswith("data: "):
                    data = line[6:] if line[6:] == "[DONE]" else json.loads(line[6:])
            if data is not None:
                out.append((event, data))
        return out


def read_all(s, until=None):
    out = b""
    try:
        while not (until and until in out):
            piece = s.recv(65536)
            if not piece:
                break
            out += piece
    except (TimeoutError, socket.timeout):
        pass
    return out


def run_tests(tests, *arguments):
    """Runs functions in turn; prints a line of counts as scripts/test reads it."""
    passed = failed = 0
    only = sys.argv[1:]
    for test in tests:
        if only and not any(word in test.__name__ for word in only):
            continue
        try:
            test(*arguments)
            passed += 1
        except Exception:
            failed += 1
            print(f"FAILED {test.__name__}")
            traceback.print_exc(file=sys.stdout)
    print(f"{passed} passed, {failed} failed, 0 skipped")
    return failed
