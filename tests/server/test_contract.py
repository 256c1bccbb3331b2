#!/usr/bin/env python3
"""test_contract.py - limits, options and fields that no other test needs, on a tiny model.

Needs Python alone. JANG: the program.
"""

import concurrent.futures
import contextlib
import http.client
import json
import pathlib
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

from serving import JANG, Server, read_all, run_tests

TINY = pathlib.Path(JANG).resolve().parent / "tests/models/llama-f32"
HI = [{"role": "user", "content": "Nobody saw the boat."}]
CHAT = "/v1/chat/completions"
TOOLS = [{"type": "function", "function": {"name": name, "parameters": {"enum": [{}]}}}
         for name in ["left", "right"]]


def chat(s, **more):
    status, _, body = s.post(CHAT, **{"messages": HI, "max_tokens": 8, "temperature": 0, **more})
    assert status == 200, (status, body)
    return body


def choice(s, **more):
    return chat(s, **more)["choices"][0]


def refused(s, status, param=None, path=CHAT, **body):
    got, headers, reply = s.post(path, **{"messages": HI, **body})
    assert got == status, (got, reply)
    assert not param or reply["error"]["param"] == param, reply
    return headers, reply["error"]


class own:
    """A server for one test."""

    def __init__(self, *options, model=TINY):
        self.s = Server(model, *options)

    def __enter__(self):
        return self.s

    def __exit__(self, *_):
        assert self.s.stop() == 0


def open_stream(s, path=CHAT, **body):
    """A connection on which a long answer streams."""
    text = json.dumps({"messages": HI, "max_tokens": 5000, "ignore_eos": True, "stream": True, **body})
    c = socket.create_connection(("127.0.0.1", s.port))
    c.settimeout(20)
    c.sendall(f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(text)}\r\n\r\n{text}".encode())
    return c


# ---- Transport ----------------------------------------------------------------------------------


def test_cors_lists(_):
    with own("--cors", "https://a.example,https://b.example") as s:
        for origin, allowed in [("https://b.example", True), ("https://c.example", False),
                                ("http://localhost:3000", True), ("http://localhost.evil", False)]:
            _, h, _ = s.ask("GET", "/health", headers={"Origin": origin})
            assert (h["Access-Control-Allow-Origin"] == origin) == allowed, origin
    with own("--cors", "*", "--api-key", "k") as s:
        status, h, _ = s.ask("OPTIONS", CHAT, headers={
            "Origin": "https://c.example", "Access-Control-Request-Method": "POST"})
        assert status == 204 and h["Access-Control-Allow-Origin"] == "*", h
        assert "POST" in h["Access-Control-Allow-Methods"] and h["Access-Control-Max-Age"]


def test_a_warning_where_others_reach(_):
    with subprocess.Popen([JANG, "serve", "--model", TINY, "--port", "0", "--host", "0.0.0.0"],
                          stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        line = server.stderr.readline()
        server.stdout.readline()
        server.terminate()
    assert "warning" in line and "--api-key" in line and server.returncode == 0, line


def test_connections_have_a_limit(_):
    with own("--connections", "3") as s:
        held = [socket.create_connection(("127.0.0.1", s.port)) for _ in range(3)]
        time.sleep(0.2)
        with socket.create_connection(("127.0.0.1", s.port)) as c:
            c.settimeout(5)
            out = read_all(c)
        assert out.startswith(b"HTTP/1.1 503") and b"the limit is 3" in out, out
        [c.close() for c in held]
        time.sleep(0.2)
        assert s.ask("GET", "/health")[0] == 200


def test_waiting_streams_are_kept_alive(_):
    with own("--parallel", "1", "--grace", "0") as s:
        def wait_in_line(path, more):
            with open_stream(s, path, **more) as c:
                outs[path] = read_all(c, b": keep-alive\n\n" if path == CHAT else b"event: ping")
        fill = [open_stream(s, n=64) for _ in range(16)]
        time.sleep(0.3)
        outs = {}
        threads = [threading.Thread(target=wait_in_line, args=a)
                   for a in [(CHAT, {}), ("/v1/messages", {})]]
        [t.start() for t in threads]
        [t.join() for t in threads]
        [c.close() for c in fill]
        assert b"\n: keep-alive\n\n" in outs[CHAT], outs[CHAT][-300:]
        assert b'event: ping\ndata: {"type":"ping"}\n\n' in outs["/v1/messages"], outs["/v1/messages"][-300:]


def test_timeouts(s):
    with own("--parallel", "1", "--timeout", "1") as s:
        fill = [open_stream(s, n=64) for _ in range(8)]
        time.sleep(0.2)
        status, _, reply = s.post(CHAT, messages=HI, max_tokens=3)
        assert status == 504 and reply["error"]["code"] == "timeout", (status, reply)
        assert "1 s" in reply["error"]["message"]
        out = read_all(fill[0])
        assert b'"finish_reason":"length"' in out and b"[DONE]" in out, out[-300:]
        [c.close() for c in fill]


def test_rate_per_key(_):
    with own("--rate", "2", "--api-key", "a,b") as s:
        def ask(key):
            return s.ask("GET", "/v1/models", headers={"x-api-key": key})
        assert [ask("a")[0] for _ in range(3)] == [200, 200, 429] and ask("b")[0] == 200
        _, headers, reply = ask("a")
        assert headers["Retry-After"] and reply["error"]["type"] == "rate_limit_error"
        assert s.ask("GET", "/health")[0] == 200


def test_a_second_signal_ends_it(_):
    s = Server(TINY, "--grace", "60", "--parallel", "1", "--no-lookup")
    with contextlib.ExitStack() as waiting:  # answers for seconds, one after the other
        for _ in range(40):
            waiting.enter_context(open_stream(s, max_tokens=100000, n=16, ignore_eos=True))
        time.sleep(0.2)
        s.process.send_signal(signal.SIGTERM)
        time.sleep(0.3)
        status, _, reply = s.post(CHAT, messages=HI)
        assert status == 503 and reply["error"]["code"] == "shutting_down", reply
        assert s.ask("GET", "/health")[0] == 503
        start = time.time()
        assert s.stop() == -signal.SIGTERM and time.time() - start < 5


def test_errors_in_each_dialect(s):
    status, _, reply = s.ask("POST", "/api/nothing", {})
    assert status == 404 and isinstance(reply["error"], str)
    status, _, reply = s.ask("GET", "/v1/messages")
    assert status == 405 and reply["type"] == "error" and reply["request_id"].startswith("req_")
    status, _, reply = s.ask("GET", "/v1/nothing", headers={"anthropic-version": "2023-06-01"})
    assert status == 404 and reply["error"]["type"] == "not_found_error", reply
    status, _, reply = s.ask("POST", "/v1/messages", b"{", {"Content-Type": "text/plain"})
    assert status == 400 and reply["error"]["type"] == "invalid_request_error"


# ---- Chat ---------------------------------------------------------------------------------------


def test_messages_in_all_their_forms(s):
    def prompt(messages, **more):
        status, _, body = s.post("/apply-template", messages=messages, **more)
        assert status == 200, body
        return body["prompt"]
    plain = prompt([{"role": "system", "content": "Be kind."}, {"role": "user", "content": "ab"}])
    assert plain == prompt([{"role": "developer", "content": [{"type": "text", "text": "Be kind."}]},
                            {"role": "user", "name": "ann", "content": [
                                {"type": "text", "text": "a"}, {"type": "input_text", "text": "b"}]}])
    calls = [{"id": "call_1", "type": "function", "function": {"name": "left", "arguments": "{not json"}}]
    text = prompt([*HI, {"role": "assistant", "content": None, "tool_calls": calls},
                   {"role": "tool", "tool_call_id": "call_1", "content": "done"}], tools=TOOLS)
    assert "{not json" in text and "done" in text, text
    assert "no" in prompt([*HI, {"role": "assistant", "content": [{"type": "refusal", "refusal": "no"}]}])
    open_end, closed = prompt(HI), prompt(HI, add_generation_prompt=False)
    assert open_end.startswith(closed) and len(open_end) > len(closed)
    begun = prompt([*HI, {"role": "assistant", "content": "It was"}], continue_final_message=True)
    assert begun == open_end + "It was", begun
    for kind in ["image_url", "input_image"]:
        refused(s, 422, "messages[0].content[0]",
                messages=[{"role": "user", "content": [{"type": kind, kind: {"url": "x"}}]}])


def test_limits_of_length(s):
    assert chat(s, max_completion_tokens=3, max_tokens=None)["usage"]["completion_tokens"] == 3
    long = choice(s, max_tokens=20, ignore_eos=True)
    assert long["finish_reason"] == "length"
    ends = {"logit_bias": {str(i): 100 for i in [0, 1, 2]}}
    assert chat(s, **ends)["usage"]["completion_tokens"] == 0
    assert choice(s, **ends)["finish_reason"] == "stop"
    assert chat(s, min_tokens=4, **ends)["usage"]["completion_tokens"] >= 4
    context = s.ask("GET", "/v1/models")[2]["data"][0]["max_model_len"]
    _, error = refused(s, 400, "messages", messages=[{"role": "user", "content": "ab " * context}])
    assert str(context) in error["message"] and error["code"] == "context_length_exceeded"


def test_sampling_settings(s):
    base = choice(s)["message"]["content"]
    assert choice(s, temperature=1, top_k=1, seed=3)["message"]["content"] == base
    assert choice(s, temperature=2, min_p=1, seed=3)["message"]["content"] == base
    assert choice(s, temperature=2, top_p=0, seed=3)["message"]["content"] == base
    for more in [{"frequency_penalty": 2}, {"presence_penalty": 2}, {"repetition_penalty": 3}]:
        text = choice(s, max_tokens=40, **more)["message"]["content"]
        assert text != choice(s, max_tokens=40)["message"]["content"], more
    drawn = {choice(s, temperature=None, top_p=None, max_tokens=12)["message"]["content"]
             for _ in range(4)}
    assert len(drawn) > 1  # without a seed each is fresh
    for more in [{"top_p": 1.5}, {"min_p": -1}, {"typical_p": 2}, {"frequency_penalty": 3},
                 {"seed": "x"}, {"logit_bias": {"1": 101}}, {"max_tokens": 0}]:
        refused(s, 400, None, **more)


def test_answers_of_one_stream(s):
    whole = chat(s, n=3, temperature=1, seed=5)["choices"]
    texts = ["", "", ""]
    for _, data in s.stream(CHAT, {"messages": HI, "max_tokens": 8, "n": 3, "temperature": 1,
                                   "seed": 5, "stream": True})[:-1]:
        c = data["choices"][0]
        texts[c["index"]] += c["delta"].get("content", "")
    assert texts == [c["message"]["content"] for c in whole]


def test_cache_fields(s):
    long = [{"role": "user", "content": "boat and sea " * 30}]

    def cached(**more):
        usage = chat(s, messages=long, max_tokens=1, **more)["usage"]
        return usage["prompt_tokens_details"]["cached_tokens"]
    status, _, warmed = s.post("/v1/cache/warm", messages=long)
    assert status == 200 and warmed["prompt_tokens"] > 128, warmed
    assert cached() >= 64 and cached(cache_prompt=False) == 0 and cached(cache_salt="other") == 0
    assert cached(cache_salt="other") >= 64 and cached(prompt_cache_key="k") >= 64
    s.ask("DELETE", "/v1/cache")
    assert cached() == 0


# ---- Tools and formats --------------------------------------------------------------------------


def test_allowed_tools(s):
    allowed = {"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": [
        {"type": "function", "function": {"name": "right"}}]}}
    for tool_choice in [allowed, {"type": "allowed_tools", **allowed["allowed_tools"]}]:
        c = choice(s, tools=TOOLS, tool_choice=tool_choice, max_tokens=400,
                   parallel_tool_calls=False)
        assert [t["function"]["name"] for t in c["message"]["tool_calls"]] == ["right"], c
    allowed["allowed_tools"]["tools"][0]["function"]["name"] = "up"
    refused(s, 400, "tool_choice", tools=TOOLS, tool_choice=allowed)


def test_tools_are_checked_alike(s):
    """A tool's name and parameters, in every dialect that has the field."""
    dialects = [
        ("/v1/chat/completions", "tools[1].function", "parameters"),
        ("/v1/responses", "tools[1]", "parameters"),
        ("/v1/messages", "tools[1]", "input_schema"),
        ("/api/chat", "tools[1].function", "parameters"),
    ]
    for path, where, parameters in dialects:
        for damage in [{"name": 5}, {"name": "f", parameters: "x"}]:
            function = {"name": "f", parameters: {"type": "object"}}
            tools = [function, damage]
            if "function" in where:
                tools = [{"type": "function", "function": one} for one in tools]
            elif path == "/v1/responses":
                tools = [{"type": "function", **one} for one in tools]
            _, _, reply = s.post(path, model="llama-f32", messages=HI, input="Hi", max_tokens=4,
                                 stream=False, tools=tools)
            error = reply["error"] if isinstance(reply["error"], str) else reply["error"]["message"]
            wrong = f"{where}.{parameters if parameters in damage else 'name'}: expected"
            assert error.startswith(wrong), (path, error)


def test_effort_of_both_dialects(s):
    for effort in ["none", "low", "xhigh"]:
        chat(s, reasoning_effort=effort)
        status, _, body = s.post("/v1/responses", input="Hi", max_output_tokens=4,
                                 reasoning={"effort": effort})
        assert status == 200, body
    refused(s, 400, "reasoning_effort", reasoning_effort="huge")
    refused(s, 400, "reasoning.effort", path="/v1/responses", input="Hi",
            reasoning={"effort": "huge"})


def test_tool_format_none(_):
    with own("--tool-format", "none", "--reasoning-format", "none") as s:
        refused(s, 422, "tool_choice", tools=TOOLS, tool_choice="required")
        grammar = "root ::= " + json.dumps('<tool_call>\n{"name": "left", "arguments": {"x": 1}}\n</tool_call>')
        c = choice(s, grammar=grammar, max_tokens=100)
        assert c["message"]["content"].startswith("<tool_call>") and c["finish_reason"] == "stop", c


def test_reasoning_is_told_apart(_):
    """The prompt ends inside of it; a format holds from its end on."""
    begun = [*HI, {"role": "assistant", "content": "<think>"}]
    cut = {"messages": begun, "continue_final_message": True}
    well = {"type": "grammar", "grammar": 'root ::= "Well"'}
    with own("--reasoning-format", "think") as s:
        c = choice(s, **cut)
        assert c["message"]["content"] == "" and c["message"]["reasoning_content"], c
        assert c["finish_reason"] == "length"
        usage = chat(s, **cut)["usage"]["completion_tokens_details"]
        assert usage["reasoning_tokens"] == 8, usage
        request = {"messages": begun, "max_tokens": 60, "output_config": {"format": well},
                   "thinking": {"type": "enabled", "budget_tokens": 4}}
        body = s.post("/v1/messages", **request)[2]
        thinking, text = body["content"]
        assert thinking["type"] == "thinking" and thinking["signature"] == "" and text["text"] == "Well", body
        events = s.stream("/v1/messages", {**request, "temperature": 0, "stream": True})
        starts = [d["content_block"]["type"] for e, d in events if e == "content_block_start"]
        kinds = {d["delta"]["type"] for e, d in events if e == "content_block_delta"}
        assert starts == ["thinking", "text"] and kinds == {"thinking_delta", "text_delta"}, events
    with own("--reasoning-format", "think", "--reasoning", "inline") as s:
        c = choice(s, **cut)
        assert c["message"]["content"] and not c["message"].get("reasoning_content"), c


def test_formats(s):
    def text(form, **more):
        return choice(s, response_format=form, max_tokens=60, **more)["message"]["content"]
    assert text({"type": "regex", "regex": "[0-9]{3}-[ab]"})[3] == "-"
    assert text({"type": "grammar", "grammar": 'root ::= "yes" | "no"'}) in ("yes", "no")
    assert choice(s, grammar='root ::= "maybe"')["message"]["content"] == "maybe"
    schema = {"type": "object", "properties": {"a": {"enum": [1, 2]}, "b": {"type": "boolean"}},
              "required": ["a", "b"], "additionalProperties": False}
    form = {"type": "json_schema", "json_schema": {"name": "n", "schema": schema, "strict": True}}
    assert set(json.loads(text(form))) == {"a", "b"}
    # what is not text on the way must be so all the same
    assert text({"type": "json_object"}, logit_bias={})[0] == "{"
    cut = choice(s, response_format={"type": "regex", "regex": "a{100}"}, max_tokens=5)
    assert cut["finish_reason"] == "length"
    for broken in [{"type": "regex", "regex": "(a"}, {"type": "grammar", "grammar": "root ::= nothing"},
                   {"type": "other"}, {"type": "json_schema", "json_schema": {"schema": 5}},
                   {"type": "json_schema", "json_schema": {"schema": {"type": "king"}}}]:
        refused(s, 400, None, response_format=broken)
    schema = {"type": "object", "properties": {"a": {"type": "string", "pattern": "(?=x)y"}}}
    _, error = refused(s, 422, None, response_format={"type": "json_schema",
                                                      "json_schema": {"schema": schema}})
    assert "properties.a.pattern" in error["message"], error


def test_many_large_tools_compile_quickly(s):
    """100 tools, a megabyte of schema: under 100 ms with an allowance for a busy machine."""
    parameters = {"type": "object", "required": ["p0"], "properties": {
        f"p{i}": {"type": "string", "maxLength": 4000, "description": "d" * 200} for i in range(40)}}
    tools = [{"type": "function", "function": {"name": f"tool_{i}", "parameters": parameters}}
             for i in range(100)]
    assert len(json.dumps(tools)) > 1000000
    # its prompt is too long by far, which does not need the grammar
    refused(s, 400, "messages", tools=tools, tool_choice="required")
    start = time.time()
    refused(s, 400, "tool_choice", tools=tools, tool_choice={"type": "function", "function": {"name": "x"}})
    assert time.time() - start < 5


# ---- Determinism --------------------------------------------------------------------------------


def sixty_four():
    """Requests of all kinds: lengths, temperatures, penalties, formats; some share a beginning."""
    out = []
    for i in range(64):
        r = {"messages": [{"role": "user", "content": "The boat. " * (i % 7) + f"{i} again {i} again"}],
             "max_tokens": 8 + i * 5 % 90, "temperature": [0, 0.7, 1.3][i % 3], "seed": i,
             "logprobs": True, "top_logprobs": i % 4, "ignore_eos": i % 5 == 0}
        r.update([{}, {"top_p": 0.8}, {"top_k": 20}, {"min_p": 0.05}, {"frequency_penalty": 0.5},
                  {"response_format": {"type": "json_object"}}, {"stop": ["e"]}][i % 7])
        out.append(r)
    return out


def parts_of(c):
    return c["message"]["content"], c["logprobs"]["content"], c["finish_reason"]


def ask_whole(s, r):
    return parts_of(s.post(CHAT, **r)[2]["choices"][0])


def ask_many(s):
    """Answers that begin together, so that all of them need memory at once."""
    reply = s.post(CHAT, messages=HI, n=16, max_tokens=120, seed=3, logprobs=True,
                   ignore_eos=True)[2]
    return [parts_of(c) for c in reply["choices"]]


def ask_stream(s, r):
    choices = [d["choices"][0] for _, d in s.stream(CHAT, {**r, "stream": True})[:-1]]
    return ("".join(c["delta"].get("content", "") for c in choices),
            [e for c in choices if c["logprobs"] for e in c["logprobs"]["content"]],
            choices[-1]["finish_reason"])


def ask_all(s, requests, ask):
    with concurrent.futures.ThreadPoolExecutor(64) as pool:
        return list(pool.map(lambda r: ask(s, r), requests))


def counter(s, name):
    return float(s.ask("GET", "/metrics")[2].split(f"\n{name} ")[1].split("\n")[0])


def test_64_requests_never_differ(_):
    """Alone and together, streaming and not, cold and warm, with and without guesses and lack of
    memory: the same text and log-probabilities."""
    requests = sixty_four()
    with own("--no-lookup", "--no-cache", "--parallel", "1") as s:
        expected, many = [ask_whole(s, r) for r in requests], ask_many(s)
    with own() as s:
        for ask in [ask_stream, ask_whole]:  # cold, then warm
            assert ask_all(s, requests, ask) == expected
        assert [ask_stream(s, r) for r in requests] == expected  # alone, where it guesses
        assert counter(s, "jang_draft_accepted_total") > 0
    with own("--draft", str(TINY), "--draft-n", "3") as s:
        assert ask_all(s, requests, ask_whole) == expected
        assert counter(s, "jang_draft_accepted_total") > 100
    with own("--kv-budget", "200K", "--prefill-chunk", "48") as s:
        for ask in [ask_whole, ask_stream]:
            assert ask_all(s, requests, ask) == expected
        assert ask_many(s) == many
        assert counter(s, "jang_preemptions_total") > 0


# ---- The disk cache -----------------------------------------------------------------------------


def damage(file, how):
    data = bytearray(file.read_bytes())
    if how == 0:
        data = data[:len(data) // 2]
    elif how == 1:
        data[len(data) // 2] ^= 1
    elif how == 2:
        data = b""
    else:
        data = data[::-1] + data
    file.write_bytes(bytes(data))


def test_disk_cache_after_kill_and_damage(_):
    requests = [{"messages": [{"role": "user", "content": f"{i % 5} boats on the sea. " * 12}],
                 "max_tokens": 8 + i, "temperature": 0, "logprobs": True} for i in range(20)]
    with own("--no-cache") as s:
        expected = ask_all(s, requests, ask_whole)

    def ask_quietly(s, r):
        try:
            return ask_whole(s, r)
        except (OSError, http.client.HTTPException, KeyError):
            return None
    with tempfile.TemporaryDirectory() as folder:
        for pause in [0.05, 0.12, 0.3]:
            s = Server(TINY, "--disk-cache", folder, "--parallel", "2")
            threads = [threading.Thread(target=ask_quietly, args=(s, r)) for r in requests]
            [t.start() for t in threads]
            time.sleep(pause)
            assert s.stop(signal.SIGKILL) == -signal.SIGKILL
            [t.join() for t in threads]
        with own("--disk-cache", folder) as s:
            assert ask_all(s, requests, ask_whole) == expected
        files = sorted(f for f in pathlib.Path(folder).rglob("*") if f.is_file())
        assert len(files) > 5
        for i, file in enumerate(files):
            damage(file, i % 4) if i % 5 else None
        with own("--disk-cache", folder) as s:
            assert ask_all(s, requests, ask_whole) == expected
        with own("--disk-cache", folder) as s:  # whole again
            assert ask_all(s, requests, ask_whole) == expected
            assert counter(s, 'jang_prompt_tokens_cached_total{tier="disk"}') > 0


def test_full_disk(_):
    """Here a limit on the size of files: what cannot be written is not there, and that is all."""
    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000))
    request = {"messages": HI * 5, "max_tokens": 20, "temperature": 0, "logprobs": True}
    with own("--no-cache") as s:
        expected = ask_whole(s, request)
    with tempfile.TemporaryDirectory() as folder:
        s = Server(TINY, "--disk-cache", folder, preexec=limit)
        try:
            for _ in range(3):
                assert ask_whole(s, request) == expected
            assert s.ask("GET", "/health")[0] == 200
        finally:
            assert s.stop() == 0
        with own("--disk-cache", folder) as s:
            assert ask_whole(s, request) == expected


# ---- Responses, Anthropic -----------------------------------------------------------------------


def test_responses_that_are_not_stored(s):
    body = s.post("/v1/responses", input="Hi", max_output_tokens=3, store=False, metadata={"a": "b"},
                  truncation="disabled", instructions="Be brief.")[2]
    assert body["metadata"] == {"a": "b"} and body["instructions"] == "Be brief."
    assert s.ask("GET", f"/v1/responses/{body['id']}")[0] == 404
    assert s.post("/v1/responses", input="x", previous_response_id=body["id"])[0] == 404
    assert s.post("/v1/responses", input=5)[0] == 400


def test_a_response_is_cancelled(s):
    with open_stream(s, "/v1/responses", input="Hi", max_output_tokens=100000) as c:
        head = read_all(c, b"response.in_progress")
        name = head.split(b'"id":"')[1].split(b'"')[0].decode()
        status, _, body = s.post(f"/v1/responses/{name}/cancel")
        assert status == 200 and body["status"] in ("cancelled", "completed", "incomplete"), body
    assert s.post("/v1/responses/resp_none/cancel")[0] == 404


def test_anthropic_fields(s):
    def ask(**more):
        return s.post("/v1/messages", **{"messages": HI, "max_tokens": 8, "temperature": 0, **more})
    counted = [s.post("/v1/messages/count_tokens", messages=HI, **more)[2]["input_tokens"]
               for more in [{}, {"system": "Be kind."}, {"system": [
                   {"type": "text", "text": "Be kind.", "cache_control": {"type": "ephemeral"}}]},
                            {"tools": [{"name": "f", "input_schema": {"type": "object"}}]}]]
    assert counted[0] < counted[1] == counted[2] and counted[0] < counted[3], counted
    assert ask(messages=[*HI, {"role": "system", "content": "Now be brief."}, *HI])[0] == 200
    image = {"role": "user", "content": [{"type": "image", "source": {}}]}
    assert ask(messages=[image])[0] == 422
    schema = {"type": "object", "properties": {"a": {"enum": [1]}}, "required": ["a"]}
    status, _, body = ask(metadata={"user_id": "u"}, top_k=1, top_p=0.5, max_tokens=60,
                          output_config={"format": {"type": "json_schema", "schema": schema}})
    assert status == 200 and json.loads(body["content"][0]["text"]) == {"a": 1}, body
    assert body["usage"]["cache_creation_input_tokens"] == 0 and body["stop_reason"] == "end_turn"
    assert ask(temperature=1.5)[0] == 400 and ask(tool_choice={"type": "any"})[0] == 400
    assert ask(max_tokens=0)[0] == 400
    for thinking in [{"type": "enabled", "budget_tokens": 4}, {"type": "adaptive"}, {"type": "disabled"}]:
        assert ask(thinking=thinking)[0] == 200


# ---- The rest -----------------------------------------------------------------------------------


def test_budget_as_a_share(_):
    with own("--kv-budget", "1%") as s:
        assert s.ask("GET", "/v1/cache")[2]["pages_max"] > 0


def test_metrics_by_name(s):
    chat(s)
    text = s.ask("GET", "/metrics")[2]
    for name in ["requests_total{", "requests_running ", "requests_waiting ", "requests_aborted_total ",
                 "prompt_tokens_total ", 'prompt_tokens_cached_total{tier="memory"} ',
                 'prompt_tokens_cached_total{tier="disk"} ', "generated_tokens_total ",
                 "time_to_first_token_seconds_bucket{", "inter_token_seconds_bucket{",
                 "request_seconds_count ", "queue_seconds_sum ", "batch_size_bucket{",
                 "kv_cache_usage_ratio ", "kv_cache_pages{state=", "kv_evictions_total ",
                 "disk_cache_bytes ", "draft_tokens_total ", "draft_accepted_total ",
                 "process_resident_bytes ", "model_load_seconds ", "build_info{version="]:
        assert f"\njang_{name}" in text, name
    assert all(len(line.rsplit(" ", 1)) == 2 and float(line.rsplit(" ", 1)[1]) >= 0
               for line in text.splitlines() if not line.startswith("#"))


def main():
    s = Server(TINY)
    failed = run_tests([f for name, f in globals().items() if name.startswith("test_")], s)
    code = s.stop()
    sys.exit(1 if failed or code else 0)


main()
