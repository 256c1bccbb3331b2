#!/usr/bin/env python3
"""test_terminal.py - the interactive side of jang, driven through a pseudo-terminal.

    test_terminal.py --jang PROGRAM [--models DIR]

A Terminal starts the program, types, and waits for what must appear. The model has random weights:
what it says is noise, so the tests look at everything but the words.
"""

import argparse
import fcntl
import json
import math
import os
import pathlib
import pty
import re
import select
import shutil
import signal
import stat
import struct
import subprocess
import sys
import tempfile
import termios
import time
import traceback

PATIENCE = 60  # seconds to wait for something to appear
PROMPT = "\n> "  # after a line's end; the terminal's \r are taken out


class Terminal:
    """A program on a pseudo-terminal of 80 columns."""

    def __init__(self, command, directory, stdout=None, **variables):
        env = {"PATH": os.environ["PATH"], "TERM": "xterm", "LC_ALL": "C.UTF-8",
               "HOME": str(directory), "XDG_STATE_HOME": str(directory / "state")}
        env |= {k: v for k, v in os.environ.items() if k.endswith("SAN_OPTIONS")}
        env |= variables
        self.text = ""  # everything shown so far
        self.seen = 0  # how much of it a wait has passed
        self.status = None
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            if stdout:
                os.dup2(os.open(stdout, os.O_WRONLY | os.O_CREAT, 0o600), 1)
            os.execvpe(command[0], command, env)
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))

    def read_some(self, seconds):
        """Reads what has come; False at the end of the program."""
        ready, _, _ = select.select([self.fd], [], [], seconds)
        if not ready:
            return True
        try:
            data = os.read(self.fd, 65536)
        except OSError:
            return False
        self.text += data.decode("utf-8", "replace").replace("\r", "")
        return bool(data)

    def wait(self, pattern):
        """Waits until a regular expression matches after what was waited for last."""
        end = time.monotonic() + PATIENCE
        while True:
            match = re.compile(pattern).search(self.text, self.seen)
            if match:
                self.seen = match.end()
                return match
            more = self.read_some(0.05)
            if not more or time.monotonic() > end:
                raise AssertionError(f"{pattern!r} does not appear in {self.text[-2000:]!r}")

    def type(self, keys):
        os.write(self.fd, keys.encode())

    def say(self, line):
        self.type(line + "\r")

    def resize(self, columns):
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))

    def end(self):
        """Waits for the program's end; returns its exit status."""
        end = time.monotonic() + PATIENCE
        while self.read_some(0.05):
            if time.monotonic() > end:
                os.kill(self.pid, signal.SIGKILL)
                raise AssertionError(f"the program does not end: {self.text[-2000:]!r}")
        _, status = os.waitpid(self.pid, 0)
        os.close(self.fd)
        self.status = os.waitstatus_to_exitcode(status)
        return self.status


def large_model(tiny, path):
    """A model of 1 GB of zeros in a file without blocks; config and tokenizer of a tiny one."""
    n_layer, width, hidden, n_vocab = 4, 2048, 8192, 307
    shutil.copytree(tiny, path)
    config = json.loads((path / "config.json").read_text())
    config |= {"hidden_size": width, "intermediate_size": hidden, "num_hidden_layers": n_layer,
               "num_attention_heads": 16, "num_key_value_heads": 16, "head_dim": width // 16}
    (path / "config.json").write_text(json.dumps(config))
    shapes = {"model.embed_tokens.weight": [n_vocab, width], "lm_head.weight": [n_vocab, width],
              "model.norm.weight": [width]}
    for i in range(n_layer):
        layer = f"model.layers.{i}."
        for name in "qkvo":
            shapes[f"{layer}self_attn.{name}_proj.weight"] = [width, width]
        shapes[f"{layer}mlp.gate_proj.weight"] = [hidden, width]
        shapes[f"{layer}mlp.up_proj.weight"] = [hidden, width]
        shapes[f"{layer}mlp.down_proj.weight"] = [width, hidden]
        shapes[f"{layer}input_layernorm.weight"] = [width]
        shapes[f"{layer}post_attention_layernorm.weight"] = [width]
    header, at = {}, 0
    for name, shape in shapes.items():
        n_bytes = 4 * math.prod(shape)
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [at, at + n_bytes]}
        at += n_bytes
    text = json.dumps(header).encode()
    with open(path / "model.safetensors", "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + at)


def needs_libedit(test):
    test.needs_libedit = True
    return test


class Suite:
    def __init__(self, options):
        self.jang = str(options.jang.resolve())
        self.model = str(options.models / "llama-f32")

    def chat(self, directory, *arguments, **variables):
        terminal = Terminal([self.jang, "run", "--model", self.model, "--temp", "0", *arguments],
                            directory, **variables)
        terminal.wait(r"loaded in")
        terminal.wait(r"/help lists")
        terminal.wait(PROMPT)
        return terminal

    def endless_model(self, directory):
        """A model that never ends its turn and says that it can hold very much."""
        model = directory / "endless"
        shutil.copytree(self.model, model)
        changes = {
            "config.json": {"eos_token_id": None, "max_position_embeddings": 1 << 20},
            "generation_config.json": {"eos_token_id": None},
            "tokenizer_config.json": {
                "eos_token": None,
                "chat_template": "{% for m in messages %}{{ m.content }}\n{% endfor %}",
            },
        }
        for name, change in changes.items():
            config = json.loads((model / name).read_text()) | change
            (model / name).write_text(json.dumps(config))
        return str(model)

    def long_answer(self, directory):
        """A chat whose answers go on until they are stopped."""
        return self.chat(directory, "--model", self.endless_model(directory), "--temp", "9",
                         "--seed", "3")

    # ---- Conversation ----

    def test_commands(self, directory):
        t = self.chat(directory, "-n", "4")
        t.say("/help")
        for name in ("/help", "/reset", "/system", "/stats", "/quit"):
            t.wait(rf"\n  {name}\b")
        t.wait(PROMPT)
        t.say("/frobnicate now")
        t.wait(r"Unknown command /frobnicate; /help lists them\." + PROMPT)
        t.say("/system")
        t.wait(r"There is no system message")
        t.say("/system Be  brief")
        t.wait(r"The system message is set")
        t.say("/system")
        t.wait(r"\nBe  brief" + PROMPT)
        t.say("/stats")
        t.wait(r"llama-f32: f32")
        t.wait(r"context: 0 tokens")
        t.wait(PROMPT)
        t.say("")
        t.wait(PROMPT)
        t.say("/quit")
        assert t.end() == 0

    def test_turns_reuse_the_cache(self, directory):
        t = self.chat(directory, "-n", "4")
        t.say("The small boat")
        t.wait(PROMPT)
        t.say("/stats")
        first = t.wait(r"prompt: (\d+) tokens \((\d+) from the cache\)")
        t.say("The small boat")
        t.wait(PROMPT)
        t.say("/stats")
        second = t.wait(r"prompt: (\d+) tokens \((\d+) from the cache\)")
        assert int(first[2]) == 0
        assert int(second[1]) > int(first[1]), "the second prompt holds the first turn"
        assert int(second[2]) >= int(first[1]) - 8, "the first turn is still in the cache"
        t.say("/reset")
        t.wait(r"starts anew")
        t.say("The small boat")
        t.wait(PROMPT)
        t.say("/stats")
        third = t.wait(r"prompt: (\d+) tokens")
        assert third[1] == first[1], "nothing of the conversation is left"
        t.wait(PROMPT)  # before the editor reads, the terminal would take the end of input itself
        t.type("\x04")
        assert t.end() == 0

    def test_raw_prompts_stand_alone(self, directory):
        t = self.chat(directory, "-n", "2", "--raw")
        for _ in range(2):
            t.say("The small boat")
            t.wait(PROMPT)
            t.say("/stats")
            assert t.wait(r"prompt: (\d+) tokens")[1] == "5"
            t.wait(PROMPT)
        t.say("/system x")
        t.wait(r"A raw prompt has no system message")
        t.say("/quit")
        assert t.end() == 0

    def test_answers_alone_go_to_stdout(self, directory):
        out = directory / "out"
        t = self.chat(directory, "-n", "3", stdout=str(out))
        t.say("The small boat")
        t.wait(PROMPT)
        t.say("/help")
        t.wait(PROMPT)
        t.say("/quit")
        assert t.end() == 0
        text = out.read_bytes()
        assert text.endswith(b"\n") and b"/help" not in text and b"boat\n" not in text

    # ---- Keys ----

    def test_interrupt_stops_the_answer_only(self, directory):
        t = self.long_answer(directory)
        t.say("The small boat")
        t.wait(r"boat\n(?s:.){40}")  # some of the answer
        t.type("\x03")
        t.wait(PROMPT)
        t.say("/stats")
        t.wait(r"stopped; seed \d+")
        t.wait(PROMPT)
        t.say("again")
        t.wait(r"again\n(?s:.){40}")
        t.type("\x03")
        t.wait(PROMPT)
        t.say("/quit")
        assert t.end() == 0

    def test_interrupt_at_the_prompt(self, directory):
        t = self.chat(directory)
        t.type("half a line")
        t.wait("half a line")
        t.type("\x03")
        t.wait(r"\^C \(once more" + r"[^\n]*" + PROMPT)
        t.say("/system")  # not appended to the half line; and it resets the count
        t.wait(r"There is no system message")
        t.wait(PROMPT)
        t.type("\x03")
        t.wait(PROMPT)
        t.type("\x03")
        assert t.end() == 0

    def test_terminate_ends_the_chat(self, directory):
        t = self.chat(directory)
        t.type("half a line")
        t.wait("half a line")
        os.kill(t.pid, signal.SIGTERM)
        assert t.end() == 1
        (directory / "again").mkdir()
        t = self.long_answer(directory / "again")
        t.say("The small boat")
        t.wait(r"boat\n(?s:.){40}")
        os.kill(t.pid, signal.SIGTERM)
        assert t.end() == 1

    @needs_libedit
    def test_editing_and_continued_lines(self, directory):
        t = self.chat(directory, "-n", "2")
        t.type("/systm\x1b[De\x05 \u00e4b\x7f\r")  # cursor left, insert, end, erase
        t.wait("The system message is set")
        t.wait(PROMPT)
        t.say("/system")
        t.wait("\n\u00e4" + PROMPT)
        t.say("/system one \\")
        t.wait(r"\n\. ")
        t.say("two")
        t.wait(r"is set")
        t.say("/system")
        t.wait(r"\none \ntwo" + PROMPT)
        t.type("\x1b[A\r")  # the line before
        t.wait(r"\none \ntwo" + PROMPT)
        t.say("/quit")
        assert t.end() == 0

    def test_resize_keeps_the_line(self, directory):
        t = self.chat(directory)
        t.type("/sys")
        t.wait("/sys")
        t.resize(40)
        time.sleep(0.3)
        t.say("tem")
        t.wait(r"There is no system message")
        t.say("/quit")
        assert t.end() == 0

    # ---- History ----

    @needs_libedit
    def test_history_is_private_and_kept(self, directory):
        t = self.chat(directory)
        t.say("/system remember me")
        t.wait(r"is set")
        t.say("/quit")
        assert t.end() == 0
        path = directory / "state/jang/history"
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
        assert "remember me" in path.read_text().replace("\\040", " ")
        path.chmod(0o644)  # somebody opened it up: the next run closes it again
        t = self.chat(directory)
        t.type("\x1b[A\x1b[A\r")  # /quit, and before it /system
        t.wait(r"is set")
        t.say("/quit")
        assert t.end() == 0
        assert stat.S_IMODE(path.stat().st_mode) == 0o600

    def test_history_that_cannot_be_kept_is_no_error(self, directory):
        (directory / "state").write_text("a file, not a directory")
        t = self.chat(directory)
        t.say("/system")
        t.wait(r"There is no system message")
        t.say("/quit")
        assert t.end() == 0

    # ---- Terminals are not steered by models ----

    def test_control_characters_do_not_reach_the_terminal(self, directory):
        template = directory / "t.jinja"
        template.write_text("{{ x }}")
        context = directory / "c.json"
        context.write_text(json.dumps({"x": "a\x1b[31mb\x07\x9b2J\x7f\rc\td\ne\u00e4"}))
        command = [self.jang, "template", "--file", str(template), "--input", str(context)]
        t = Terminal(command, directory)
        assert t.end() == 0
        assert t.text == "a^[[31mb^G\ufffd2J^?^Mc\td\ne\u00e4", repr(t.text)

    def test_words_of_the_model_do_not_steer_the_terminal(self, directory):
        """The fixture's vocabulary has every byte, ESC among them, and drawn at random it comes."""
        model = self.endless_model(directory)
        t = Terminal([self.jang, "run", "--model", model, "--raw", "-p", "xyz", "--temp", "50",
                      "--seed", "1", "-n", "3000"], directory)
        assert t.end() == 0
        answer = t.text.partition("\n")[2].partition("\nprompt: ")[0]
        assert "^[" in answer, repr(answer)
        controls = [c for c in answer if c not in "\n\t" and (c < " " or "\x7f" <= c < "\xa0")]
        assert not controls, repr(controls)

    # ---- A long conversion ----

    def convert_command(self, directory):
        large_model(pathlib.Path(self.model), directory / "large")
        return [self.jang, "convert", "--model", str(directory / "large"), "--bits", "4",
                "--threads", "1", "--output", str(directory / "out")]

    def test_progress_bar_and_interrupt(self, directory):
        t = Terminal(self.convert_command(directory), directory)
        t.wait(r"\[#* *\] +\d+%  [\d.]+ .?B of [\d.]+ .?B  [\d.]+ .?B/s  [\d:]+ left")
        t.resize(60)
        t.type("\x03")
        assert t.end() == 1
        assert t.text.endswith("\x1b[Kjang: stopped; nothing was written\n"), repr(t.text[-300:])
        assert sorted(os.listdir(directory)) == ["large"]

    def test_terminate_leaves_nothing_behind(self, directory):
        process = subprocess.Popen(self.convert_command(directory), stdout=subprocess.DEVNULL,
                                   stderr=subprocess.PIPE, text=True)
        time.sleep(0.3)
        process.terminate()
        _, err = process.communicate(timeout=PATIENCE)
        assert process.returncode == 1, process.returncode
        assert err.endswith("jang: stopped; nothing was written\n"), repr(err)
        assert "\x1b" not in err and "#" not in err
        assert sorted(os.listdir(directory)) == ["large"]


def attempt(suite, name):
    """Runs a test; one that fails must not keep the others from running."""
    with tempfile.TemporaryDirectory(prefix="jang-chat-") as directory:
        try:
            getattr(suite, name)(pathlib.Path(directory))
            print(f"ok   {name}", flush=True)
            return True
        except Exception:
            print(f"FAIL {name}\n{traceback.format_exc()}", flush=True)
            return False


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--jang", type=pathlib.Path, required=True)
    parser.add_argument("--models", type=pathlib.Path, help="default: tests/models beside jang")
    parser.add_argument("only", nargs="*")
    options = parser.parse_args()
    options.models = options.models or options.jang.resolve().parent / "tests/models"
    suite = Suite(options)
    version = subprocess.run([suite.jang, "--version"], capture_output=True, text=True, check=True)
    has_libedit = "line editing: libedit" in version.stdout
    failed = 0
    for name in dir(suite):
        if not name.startswith("test_") or (options.only and name not in options.only):
            continue
        if hasattr(getattr(suite, name), "needs_libedit") and not has_libedit:
            print(f"skip {name}: built without libedit")
            continue
        # Keys that come while the terminal changes its mode can be lost on a busy machine, so a
        # test that fails is tried once more, and must then pass.
        if not attempt(suite, name) and not attempt(suite, name):
            failed += 1
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
