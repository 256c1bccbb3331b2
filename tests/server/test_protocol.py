#!/usr/bin/env python3
"""test_protocol.py - the server by plain HTTP: transport, errors, and each dialect's shapes.

Needs Python alone. JANG: the program; JANG_SMOLLM2: SmolLM2's GGUF file, fetched otherwise.
"""

import collections
import http.client
import json
import pathlib
import socket
import subprocess
import sys
import tempfile
import threading
import time

from serving import JANG, Server, read_all, run_tests, small_model

HI = [{"role": "user", "content": "Say hi."}]
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Weather of a city",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
            "required": ["city"],
        },
    },
}
CHAT = "/v1/chat/completions"


def chat(s, **more):
    status, _, body = s.post(CHAT, **{"messages": HI, "max_tokens": 12, "temperature": 0, **more})
    assert status == 200, (status, body)
    return body


def error(s, path, body, status, code=None, param=None):
    got, headers, reply = s.ask("POST", path, body)
    assert got == status, (got, reply)
    assert headers["x-request-id"].startswith("req_")
    e = reply["error"]
    if code:
        assert e["code"] == code, e
    if param:
        assert e["param"] == param, e
    return e["message"]


# ---- Transport ----------------------------------------------------------------------------------


def test_prefixes_and_queries_are_forgiven(s):
    for path in ["/v1/models", "/models", "/v1/v1/models", "/v1/models?beta=true"]:
        assert s.ask("GET", path)[0] == 200, path


def test_head_and_keep_alive(s):
    out = s.raw(b"HEAD /health HTTP/1.1\r\nHost: x\r\n\r\nGET /health HTTP/1.1\r\nHost: x\r\n"
                b"Connection: close\r\n\r\n")
    head, rest = out.split(b"\r\n\r\n", 1)
    assert b"Content-Length: " in head and rest.startswith(b"HTTP/1.1 200"), out
    assert json.loads(rest.split(b"\r\n\r\n", 1)[1])["status"] == "ok"


def test_pipelined_requests_come_in_order(s):
    out = s.raw(b"GET /v1/models HTTP/1.1\r\nHost: x\r\n\r\n"
                b"POST /tokenize HTTP/1.1\r\nHost: x\r\nContent-Length: 16\r\n\r\n"
                b'{"content":"hi"}'
                b"GET /nowhere HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert out.count(b"HTTP/1.1 200") == 2 and out.count(b"HTTP/1.1 404") == 1, out
    assert out.index(b'"object":"list"') < out.index(b'"tokens"') < out.index(b"404")


def test_chunked_body(s):
    body = b'{"content":"hi"}'
    chunks = b"".join(b"%x\r\n%s\r\n" % (1, body[i:i + 1]) for i in range(len(body)))
    out = s.raw(b"POST /tokenize HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n"
                b"Connection: close\r\n\r\n" + chunks + b"0\r\n\r\n")
    assert b"HTTP/1.1 200" in out and b'"tokens"' in out, out


def test_expect_continue(s):
    with socket.create_connection(("127.0.0.1", s.port)) as c:
        c.settimeout(5)
        c.sendall(b"POST /tokenize HTTP/1.1\r\nHost: x\r\nContent-Length: 16\r\n"
                  b"Expect: 100-continue\r\nConnection: close\r\n\r\n")
        assert read_all(c, b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        c.sendall(b'{"content":"hi"}')
        assert b"HTTP/1.1 200" in read_all(c)


def test_413_before_the_body(s):
    out = s.raw(b"POST /tokenize HTTP/1.1\r\nHost: x\r\nContent-Length: 33554433\r\n"
                b"Expect: 100-continue\r\n\r\n")
    assert out.startswith(b"HTTP/1.1 413") and b"33554432" in out, out
    out = s.raw(b"POST /tokenize HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
                b"2000001\r\n" + b" " * 33554433)
    assert out.startswith(b"HTTP/1.1 413"), out[:200]


def test_431_to_the_byte(s):
    def head(n):
        start = b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\nX: "
        return start + b"a" * (n - len(start) - 4) + b"\r\n\r\n"
    assert s.raw(head(65536)).startswith(b"HTTP/1.1 200")
    out = s.raw(head(65537))
    assert out.startswith(b"HTTP/1.1 431") and b"65536" in out, out
    assert json.loads(out.split(b"\r\n\r\n", 1)[1])["error"]["type"] == "invalid_request_error"


def test_malformed_requests(s):
    for data in [b"GARBAGE\r\n\r\n", b"GET / HTTP/1.1\r\nHost x\r\n\r\n", b"POST / HTTP/1.1\r\nHost: x\r\n"
                 b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\nhello"]:
        out = s.raw(data)
        assert out.startswith(b"HTTP/1.1 400"), (data, out)


def test_cors(s):
    _, h, _ = s.ask("GET", "/health", headers={"Origin": "http://localhost:3000"})
    assert h["Access-Control-Allow-Origin"] == "http://localhost:3000"
    _, h, _ = s.ask("GET", "/health", headers={"Origin": "http://evil.example"})
    assert h["Access-Control-Allow-Origin"] is None
    status, h, _ = s.ask("OPTIONS", CHAT, headers={
        "Origin": "http://127.0.0.1:5", "Access-Control-Request-Headers": "authorization,x-y"})
    assert status == 204 and h["Access-Control-Allow-Headers"] == "authorization,x-y"


def test_client_gone_frees_its_slot(s):
    for stream in [True, False]:
        body = json.dumps({"messages": HI, "max_tokens": 5000, "ignore_eos": True, "stream": stream})
        c = socket.create_connection(("127.0.0.1", s.port))
        c.sendall(f"POST {CHAT} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode())
        wait_for(lambda: s.ask("GET", "/health")[2]["slots_busy"] == 1)
        c.close()
        wait_for(lambda: s.ask("GET", "/health")[2]["slots_busy"] == 0)


def test_client_gone_during_prefill(s):
    body = json.dumps({"prompt": "word " * 7000, "max_tokens": 5})
    c = socket.create_connection(("127.0.0.1", s.port))
    c.sendall(f"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode())
    wait_for(lambda: s.ask("GET", "/slots")[2] != [])
    c.close()
    wait_for(lambda: s.ask("GET", "/slots")[2] == [])


def wait_for(condition, seconds=20):
    end = time.time() + seconds
    while not condition():
        assert time.time() < end, "did not come true"
        time.sleep(0.02)


def test_stream_head_comes_before_the_prompt_is_done(s):
    body = json.dumps({"prompt": "other " * 4000, "max_tokens": 2, "stream": True})
    with socket.create_connection(("127.0.0.1", s.port)) as c:
        c.settimeout(30)
        start = time.time()
        c.sendall(f"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode())
        head = read_all(c, b"\r\n\r\n")
        first = time.time() - start
        assert b"text/event-stream" in head and b"X-Accel-Buffering: no" in head, head
        read_all(c, b"[DONE]")
        assert first < (time.time() - start) / 2


# ---- Errors -------------------------------------------------------------------------------------


def test_errors_name_field_value_and_what_is_allowed(s):
    cases = [
        ("{", 400, "invalid_json", None),
        ("[1]", 400, "invalid_type", None),
        ("[" * 300 + "]" * 300, 400, "invalid_json", None),
        ({}, 400, "missing_field", "messages"),
        ({"messages": []}, 400, "invalid_value", "messages"),
        ({"messages": [{"role": "king", "content": "x"}]}, 400, "invalid_value", "messages[0].role"),
        ({"messages": [{"content": "x"}]}, 400, "missing_field", "messages[0].role"),
        ({"messages": HI + [{"role": "user", "content": 5}]}, 400, "invalid_type", "messages[1].content"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]},
         422, "unsupported", "messages[0].content[0]"),
        ({"messages": HI, "temperature": 3}, 400, "invalid_value", "temperature"),
        ({"messages": HI, "top_logprobs": 21, "logprobs": True}, 400, "invalid_value", "top_logprobs"),
        ({"messages": HI, "n": 65}, 400, "invalid_value", "n"),
        ({"messages": HI, "stop": ["a"] * 17}, 400, "invalid_type", "stop"),
        ({"messages": HI, "logit_bias": {"x": 1}}, 400, "invalid_value", "logit_bias"),
        ({"messages": HI, "stream": "yes"}, 400, "invalid_type", "stream"),
        ({"messages": HI, "tool_choice": "required"}, 400, "invalid_value", "tool_choice"),
        ({"messages": HI, "tools": [WEATHER], "tool_choice": {"type": "function", "function": {"name": "f"}}},
         400, "invalid_value", "tool_choice"),
        ({"messages": HI, "response_format": {"type": "json_schema", "json_schema": {}}}, 400, None, None),
        ({"messages": [{"role": "user", "content": "long " * 20000}]}, 400, "context_length_exceeded", "messages"),
    ]
    for body, status, code, param in cases:
        error(s, CHAT, body, status, code, param)
    message = error(s, CHAT, {"messages": HI, "max_tokens": "ten"}, 400, "invalid_type", "max_tokens")
    assert message == 'max_tokens: expected an integer >= 1, got "ten"', message
    error(s, "/v1/nowhere", {}, 404, "not_found")
    assert s.ask("GET", CHAT)[0] == 405
    assert s.ask("GET", "/v1/models/other")[0] == 404


def test_anthropic_errors(s):
    status, headers, body = s.post("/v1/messages", messages=HI)
    assert status == 400 and body["type"] == "error", body
    assert body["error"]["type"] == "invalid_request_error" and "max_tokens" in body["error"]["message"]
    assert body["request_id"] == headers["x-request-id"]


def test_null_is_the_default(s):
    chat(s, stop=None, seed=None, tools=None, response_format=None, n=None, logit_bias=None)


# ---- Chat ---------------------------------------------------------------------------------------


def test_chat_shape(s):
    body = chat(s)
    assert body["object"] == "chat.completion" and body["id"].startswith("chatcmpl-")
    assert body["model"] == "smol" and body["system_fingerprint"].startswith("jang-")
    choice = body["choices"][0]
    assert choice["message"]["role"] == "assistant" and choice["message"]["content"]
    assert choice["finish_reason"] == "length" and choice["logprobs"] is None
    usage = body["usage"]
    assert usage["completion_tokens"] == 12
    assert usage["total_tokens"] == usage["prompt_tokens"] + 12


def test_stream_says_the_same(s):
    whole = chat(s, logprobs=True, top_logprobs=3)
    events = s.stream(CHAT, {"messages": HI, "max_tokens": 12, "temperature": 0, "stream": True,
                             "logprobs": True, "top_logprobs": 3, "stream_options": {"include_usage": True}})
    assert events[-1][1] == "[DONE]"
    chunks = [data for _, data in events[:-1]]
    assert chunks[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert len({c["id"] for c in chunks}) == 1
    assert chunks[-1]["choices"] == [] and chunks[-1]["usage"]["completion_tokens"] == 12
    assert chunks[-2]["choices"][0]["finish_reason"] == "length"
    choices = [c["choices"][0] for c in chunks[:-1]]
    assert "".join(c["delta"].get("content", "") for c in choices) == whole["choices"][0]["message"]["content"]
    entries = [e for c in choices if c["logprobs"] for e in c["logprobs"]["content"]]
    assert entries == whole["choices"][0]["logprobs"]["content"] and len(entries) == 12
    assert all("usage" not in c for c in chunks[:-1])
    tops = [t["logprob"] for t in entries[0]["top_logprobs"]]
    assert len(tops) == 3 and tops == sorted(tops, reverse=True)
    assert bytes(b for e in entries for b in e["bytes"]).decode() == whole["choices"][0]["message"]["content"]


def test_stop_strings_cross_tokens(s):
    text = chat(s)["choices"][0]["message"]["content"]
    stop = text[4:9]
    body = chat(s, stop=[stop, "nowhere"])
    assert body["choices"][0]["message"]["content"] == text[:4], (text, body)
    assert body["choices"][0]["finish_reason"] == "stop"


def test_n_and_seed(s):
    one = chat(s, n=3, temperature=1, seed=7)
    two = chat(s, n=3, temperature=1, seed=7)
    assert [c["message"] for c in one["choices"]] == [c["message"] for c in two["choices"]]
    assert len({c["message"]["content"] for c in one["choices"]}) > 1
    assert one["usage"]["completion_tokens"] == 36
    last = chat(s, temperature=1, seed=9)["choices"][0]["message"]
    assert last == one["choices"][2]["message"]


def test_same_answer_alone_and_in_company(s):
    requests = [{"messages": [{"role": "user", "content": f"Count to {i}."}], "max_tokens": 16,
                 "temperature": i % 2, "seed": i} for i in range(12)]
    alone = [s.post(CHAT, **r)[2]["choices"] for r in requests]
    together = [None] * len(requests)

    def ask(i):
        together[i] = s.post(CHAT, **requests[i])[2]["choices"]
    threads = [threading.Thread(target=ask, args=[i]) for i in range(len(requests))]
    [t.start() for t in threads]
    [t.join() for t in threads]
    assert alone == together


def test_prefix_is_found_again(s):
    messages = [{"role": "user", "content": "Remember: " + "blue green red " * 60}]
    s.post(CHAT, messages=messages, max_tokens=1)
    usage = s.post(CHAT, messages=messages, max_tokens=1)[2]["usage"]
    assert usage["prompt_tokens_details"]["cached_tokens"] >= 128, usage


def test_bias_and_min_tokens(s):
    ids = s.post("/tokenize", content="Hello")[2]["tokens"]
    text = chat(s, logit_bias={str(ids[0]): -100})["choices"][0]["message"]["content"]
    assert not text.startswith("Hello")


# ---- Tools and structure ------------------------------------------------------------------------


def test_required_tool_is_called(s):
    for choice in ["required", {"type": "function", "function": {"name": "get_weather"}}]:
        body = chat(s, tools=[WEATHER], tool_choice=choice, max_tokens=100,
                    parallel_tool_calls=False)
        c = body["choices"][0]
        assert c["finish_reason"] == "tool_calls", c
        call = c["message"]["tool_calls"][0]
        assert call["id"].startswith("call_") and call["function"]["name"] == "get_weather"
        assert isinstance(json.loads(call["function"]["arguments"])["city"], str)


def test_tools_beside_a_format(s):
    """An answer is a call, or fits the format."""
    shape = {"type": "json_schema", "json_schema": {"schema": {
        "type": "object", "properties": {"name": {"type": "string", "maxLength": 12}},
        "required": ["name"]}}}
    for name in ("call it", "name it"):
        body = s.post("/chat/completions", messages=[{"role": "user", "content": name}],
                      tools=[WEATHER], response_format=shape, parallel_tool_calls=False,
                      temperature=0, max_tokens=100)[2]
        message = body["choices"][0]["message"]
        if message.get("tool_calls"):
            assert not message["content"], message
            json.loads(message["tool_calls"][0]["function"]["arguments"])
        else:
            assert list(json.loads(message["content"])) == ["name"], message


def test_tool_deltas_join_to_the_whole(s):
    request = {"messages": HI, "temperature": 0, "tools": [WEATHER], "tool_choice": "required", "parallel_tool_calls": False, "max_tokens": 100}
    whole = s.post(CHAT, **request)[2]["choices"][0]["message"]["tool_calls"][0]["function"]
    events = s.stream(CHAT, {**request, "stream": True})
    deltas = [d["tool_calls"][0] for _, c in events[:-1] for d in [c["choices"][0]["delta"]] if "tool_calls" in d]
    assert deltas[0]["function"] == {"name": "get_weather", "arguments": ""} and deltas[0]["type"] == "function"
    assert "".join(d["function"]["arguments"] for d in deltas) == whole["arguments"]
    assert len(deltas) > 3, "the arguments came in one piece"


def test_tool_results_and_none(s):
    messages = HI + [
        {"role": "assistant", "content": None, "tool_calls": [
            {"id": "call_1", "type": "function", "function": {"name": "get_weather", "arguments": "{broken"}}]},
        {"role": "tool", "tool_call_id": "call_1", "content": "Rain."}]
    chat(s, messages=messages, tools=[WEATHER])
    prompt = s.post("/apply-template", messages=messages, tools=[WEATHER])[2]["prompt"]
    assert "get_weather" in prompt and "Rain." in prompt and "{broken" in prompt
    prompt = s.post("/apply-template", messages=HI, tools=[WEATHER], tool_choice="none")[2]["prompt"]
    assert "get_weather" not in prompt


def test_old_functions(s):
    body = chat(s, functions=[WEATHER["function"]], function_call={"name": "get_weather"},
                max_tokens=100)
    assert body["choices"][0]["message"]["tool_calls"]


def test_structured_output(s):
    age = {"type": "integer", "minimum": 1, "maximum": 99}
    schema = {"type": "object",
              "properties": {"name": {"type": "string", "maxLength": 12}, "age": age},
              "required": ["name", "age"], "additionalProperties": False}
    body = chat(s, max_tokens=120, response_format={
        "type": "json_schema", "json_schema": {"name": "x", "schema": schema, "strict": True}})
    value = json.loads(body["choices"][0]["message"]["content"])
    assert list(value) == ["name", "age"] and 1 <= value["age"] <= 99, value
    assert body["choices"][0]["finish_reason"] == "stop"
    body = chat(s, response_format={"type": "regex", "regex": "(yes|no)!"})
    assert body["choices"][0]["message"]["content"] in ["yes!", "no!"]
    body = chat(s, grammar='root ::= "a" | "b"')
    assert body["choices"][0]["message"]["content"] in ["a", "b"]
    bad = {"type": "json_schema", "json_schema": {"schema": {"type": "string", "pattern": "(?=x)"}}}
    assert s.post(CHAT, messages=HI, response_format=bad)[0] in (400, 422)


# ---- Completions --------------------------------------------------------------------------------


def test_completions(s):
    status, _, body = s.post("/v1/completions", prompt=["One two", "Red green"], n=2, max_tokens=4,
                             temperature=0)
    assert status == 200 and [c["index"] for c in body["choices"]] == [0, 1, 2, 3]
    assert body["choices"][0]["text"] == body["choices"][1]["text"] != body["choices"][2]["text"]
    ids = s.post("/tokenize", content="One two")[2]["tokens"]
    again = s.post("/v1/completions", prompt=ids, max_tokens=4, temperature=0)[2]
    assert again["choices"][0]["text"] == body["choices"][0]["text"]


def test_echo_scores_the_prompt(s):
    body = s.post("/v1/completions", prompt="The sky is blue", max_tokens=0, echo=True,
                  logprobs=2)[2]
    c = body["choices"][0]
    assert c["text"] == "The sky is blue"
    scores = c["logprobs"]
    assert "".join(scores["tokens"]) == c["text"] and scores["token_logprobs"][0] is None
    assert all(p < 0 for p in scores["token_logprobs"][1:])
    assert scores["text_offset"][:2] == [0, len(scores["tokens"][0])]
    assert len(scores["top_logprobs"][1]) >= 2


def test_completion_stream(s):
    whole = s.post("/v1/completions", prompt="One two", max_tokens=6, temperature=0)[2]
    events = s.stream("/v1/completions", {"prompt": "One two", "max_tokens": 6, "temperature": 0, "stream": True})
    assert "".join(d["choices"][0]["text"] for _, d in events[:-1]) == whole["choices"][0]["text"]


# ---- Anthropic ----------------------------------------------------------------------------------


def test_messages(s):
    status, _, body = s.post("/v1/messages", messages=HI, max_tokens=12, temperature=0, system="Be brief.")
    assert status == 200 and body["type"] == "message" and body["id"].startswith("msg_"), body
    assert body["content"][0]["type"] == "text" and body["stop_reason"] == "max_tokens"
    usage = body["usage"]
    counted = s.post("/v1/messages/count_tokens", messages=HI, system="Be brief.")[2]["input_tokens"]
    assert usage["input_tokens"] + usage["cache_read_input_tokens"] == counted


def test_messages_stream(s):
    request = {"messages": HI, "max_tokens": 12, "temperature": 0}
    whole = s.post("/v1/messages", **request)[2]
    events = s.stream("/v1/messages", {**request, "stream": True})
    kinds = [e for e, _ in events]
    assert kinds[:3] == ["message_start", "content_block_start", "content_block_delta"], kinds
    assert kinds[-3:] == ["content_block_stop", "message_delta", "message_stop"], kinds
    assert all(e == d["type"] for e, d in events)
    assert "".join(d["delta"]["text"] for e, d in events if e == "content_block_delta") == whole["content"][0]["text"]
    assert events[-2][1]["delta"]["stop_reason"] == "max_tokens"


def test_messages_tools(s):
    tools = [{"name": "get_weather", "input_schema": WEATHER["function"]["parameters"]}, {"type": "web_search_1", "name": "w"}]
    request = {"messages": HI, "max_tokens": 100, "temperature": 0, "tools": tools, "tool_choice": {"type": "any", "disable_parallel_tool_use": True}}
    body = s.post("/v1/messages", **request)[2]
    block = body["content"][-1]
    assert body["stop_reason"] == "tool_use" and block["id"].startswith("toolu_") and "city" in block["input"]
    events = s.stream("/v1/messages", {**request, "stream": True})
    joined = "".join(d["delta"]["partial_json"] for e, d in events if e == "content_block_delta")
    assert json.loads(joined) == block["input"]
    follow = HI + [{"role": "assistant", "content": [block]},
                   {"role": "user", "content": [{"type": "tool_result", "tool_use_id": block["id"], "content": "Rain"}]}]
    assert s.post("/v1/messages", messages=follow, max_tokens=5, tools=tools)[0] == 200


def test_messages_stop_and_prefill(s):
    body = s.post("/v1/messages", messages=HI + [{"role": "assistant", "content": "Count: 1, 2,"}], max_tokens=16,
                  temperature=0, stop_sequences=[","])[2]
    assert body["stop_reason"] == "stop_sequence" and body["stop_sequence"] == ",", body


def test_volatile_lines_do_not_defeat_the_cache(s):
    def ask(line):
        system = [{"type": "text", "text": line}, {"type": "text", "text": "You help. " * 80}]
        return s.post("/v1/messages", messages=HI, max_tokens=1, system=system)[2]["usage"]
    ask("x-anthropic-billing-header: a=1")
    assert ask("x-anthropic-billing-header: a=2")["cache_read_input_tokens"] >= 128


# ---- Responses ----------------------------------------------------------------------------------


def test_responses(s):
    body = s.post("/v1/responses", input="Say hi.", max_output_tokens=12, temperature=0)[2]
    assert body["object"] == "response" and body["status"] == "incomplete", body
    assert body["incomplete_details"] == {"reason": "max_output_tokens"}
    text = body["output"][0]["content"][0]["text"]
    assert text == chat(s)["choices"][0]["message"]["content"]
    assert s.ask("GET", f"/v1/responses/{body['id']}")[2] == body
    after = s.post("/v1/responses", input="More.", previous_response_id=body["id"], max_output_tokens=4)[2]
    assert after["usage"]["input_tokens"] > body["usage"]["input_tokens"] + 10
    assert s.ask("DELETE", f"/v1/responses/{body['id']}")[2]["deleted"]
    assert s.ask("GET", f"/v1/responses/{body['id']}")[0] == 404


def test_responses_stream(s):
    events = s.stream("/v1/responses", {"input": "Say hi.", "max_output_tokens": 12, "temperature": 0, "stream": True})
    kinds = [e for e, _ in events]
    assert kinds[:5] == ["response.created", "response.in_progress", "response.output_item.added",
                         "response.content_part.added", "response.output_text.delta"], kinds
    assert kinds[-4:] == ["response.output_text.done", "response.content_part.done",
                          "response.output_item.done", "response.incomplete"], kinds
    assert [d["sequence_number"] for _, d in events] == list(range(len(events)))
    text = "".join(d["delta"] for e, d in events if e == "response.output_text.delta")
    assert text == events[-1][1]["response"]["output"][0]["content"][0]["text"]


def test_responses_tools(s):
    tool = {"type": "function", **WEATHER["function"]}
    events = s.stream("/v1/responses", {"input": "Hi", "tools": [tool, {"type": "web_search"}], "temperature": 0,
                                        "tool_choice": "required", "stream": True, "max_output_tokens": 100,
                                        "parallel_tool_calls": False})
    item = events[-1][1]["response"]["output"][0]
    assert item["type"] == "function_call" and item["name"] == "get_weather", item
    pieces = "".join(d["delta"] for e, d in events if e == "response.function_call_arguments.delta")
    assert pieces == item["arguments"]
    status, _, _ = s.post("/v1/responses", max_output_tokens=4, tools=[tool], input=[
        {"role": "user", "content": [{"type": "input_text", "text": "Hi"}]}, item,
        {"type": "function_call_output", "call_id": item["call_id"], "output": "Rain"}])
    assert status == 200


# ---- The rest -----------------------------------------------------------------------------------


def test_models_health_metrics_cache(s):
    model = s.ask("GET", "/v1/models")[2]["data"][0]
    assert model["id"] == "smol" and model["max_model_len"] == 8192 and model["meta"]["quantization"] == "JANG_4M"
    assert s.ask("GET", "/v1/models/smol")[2] == model
    assert s.ask("GET", "/health")[2]["slots_idle"] > 0
    text = s.ask("GET", "/metrics")[2]
    for name in ["jang_requests_total{route=\"/models\",code=\"200\"}", "jang_generated_tokens_total",
                 "jang_time_to_first_token_seconds_bucket", "jang_build_info{version="]:
        assert name in text, name
    assert s.ask("GET", "/v1/cache")[2]["hits"] >= 0
    assert s.post("/v1/cache/warm", prompt="warm " * 200)[2]["prompt_tokens"] >= 200
    assert s.ask("DELETE", "/v1/cache")[2]["cleared"]


def test_tokens(s):
    tokens = s.post("/tokenize", content="Grüße")[2]["tokens"]
    assert s.post("/detokenize", tokens=tokens)[2]["content"] == "Grüße"
    assert s.post("/tokenize", prompt="Grüße", add_special_tokens=False)[2]["tokens"] == tokens
    info = s.ask("GET", "/tokenizer_info")[2]
    assert info["eos_token"] in ("<|im_end|>", "<|endoftext|>") and "messages" in info["chat_template"]
    assert s.post("/detokenize", tokens=[10 ** 9])[0] == 400


def test_page_and_word(s):
    assert s.ask("GET", "/")[2] == "Ollama is running"
    status, headers, text = s.ask("GET", "/", headers={"Accept": "text/html"})
    assert status == 200 and "Content-Security-Policy" in headers and "<!doctype html>" in text


# ---- Servers of their own -----------------------------------------------------------------------


def test_keys_and_strict_model(_):
    s = Server(small_model(), "--api-key", "one,two", "--strict-model", "--alias", "mine", "--rate", "600")
    try:
        assert s.ask("GET", "/health")[0] == 200
        status, _, body = s.ask("GET", "/v1/models")
        assert status == 401 and body["error"]["code"] == "invalid_api_key"
        for headers in [{"Authorization": "Bearer two"}, {"x-api-key": "one"}]:
            assert s.ask("GET", "/v1/models", headers=headers)[0] == 200
        assert s.ask("GET", "/v1/models", headers={"x-api-key": "ones"})[0] == 401
        body = {"messages": HI, "model": "gpt-4o", "max_tokens": 1}
        assert s.ask("POST", CHAT, body, {"x-api-key": "one"})[0] == 404
        assert s.ask("POST", CHAT, {**body, "model": "mine"}, {"x-api-key": "one"})[0] == 200
    finally:
        assert s.stop() == 0


def test_full_queue_and_shutdown(_):
    s = Server(small_model(), "--parallel", "1", "--queue", "1", "--grace", "1")
    body = {"messages": HI, "max_tokens": 6000, "ignore_eos": True, "stream": True}
    try:
        with socket.create_connection(("127.0.0.1", s.port)) as c:
            text = json.dumps(body)
            c.sendall(f"POST {CHAT} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(text)}\r\n\r\n{text}".encode())
            wait_for(lambda: s.ask("GET", "/health")[2]["slots_busy"] == 1)
            def ask():
                return s.post(CHAT, messages=HI, max_tokens=2)
            waiting = [threading.Thread(target=ask) for _ in range(2)]
            [w.start() for w in waiting]
            wait_for(lambda: s.ask("GET", "/health")[2]["queue"] == 2)
            status, headers, reply = s.post(CHAT, messages=HI)
            assert status == 429 and headers["Retry-After"]
            assert reply["error"]["code"] == "queue_full"
            code = []
            stopper = threading.Thread(target=lambda: code.append(s.stop()))
            stopper.start()
            c.settimeout(20)
            out = read_all(c)
            stopper.join()
            [w.join() for w in waiting]
            assert b'"finish_reason":"length"' in out and b"[DONE]" in out, out[-500:]
            assert code == [0]
    finally:
        s.stop()


def test_slow_and_silent_connections(_):
    """A head in pieces, a body that stops, nothing at all, and nothing after an answer."""
    whole = b"GET /health HTTP/1.1\r\n\r\n"
    cases = [(b"GET /health HTTP/1.1\r\n", 1, b"HTTP/1.1 408"), (b"", 2.5, b""),
             (whole, 2.5, b"HTTP/1.1 200"),
             (b"POST /tokenize HTTP/1.1\r\nContent-Length: 9\r\n\r\n{", 2.5, b"HTTP/1.1 408")]
    s = Server(small_model(), "--head-time", "1", "--idle-time", "2.5")
    try:
        for data, seconds, expected in cases:
            with socket.create_connection(("127.0.0.1", s.port)) as c:
                c.settimeout(20)
                start = time.time()
                c.sendall(data)
                out = read_all(c)
                took = time.time() - start
                assert out.startswith(expected) and bool(out) == bool(expected), out
                assert seconds - 0.1 <= took < seconds + 3, (data, took)
    finally:
        assert s.stop() == 0


def test_loading(_):
    """Six models take a while; until they are there, all but /health is told to come back."""
    with tempfile.TemporaryDirectory() as folder, socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
        free.close()
        links = [pathlib.Path(folder) / f"model{i}" for i in range(6)]
        for link in links:
            link.symlink_to(small_model())
        process = subprocess.Popen(
            [JANG, "serve", "--port", str(port), *[w for p in links for w in ("--model", str(p))]],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        seen = collections.Counter()
        try:
            while process.poll() is None and seen["ok"] == 0:
                try:
                    for path, body in ("/health", None), (CHAT, json.dumps({"messages": HI, "max_tokens": 1})):
                        c = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
                        c.request("POST" if body else "GET", path, body)
                        r = c.getresponse()
                        answer = json.loads(r.read())
                        c.close()
                        if r.status == 503 and body:
                            assert answer["error"]["code"] == "loading", answer
                        elif r.status == 503:
                            assert answer == {"status": "loading"}, answer
                        seen["loading" if r.status == 503 else "ok"] += 1
                except ConnectionRefusedError:
                    time.sleep(0.005)
            assert seen["loading"] > 1 and seen["ok"] > 0, (seen, process.stderr.read())
        finally:
            process.terminate()
            assert process.wait(60) == 0


def main():
    s = Server(small_model())
    tests = [f for name, f in globals().items() if name.startswith("test_")]
    failed = run_tests(tests, s)
    code = s.stop()
    sys.exit(1 if failed or code else 0)


main()
