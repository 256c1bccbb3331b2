#!/usr/bin/env python3
"""test_clients.py - the server through the clients that people use: openai, anthropic.

JANG: the program; JANG_SMOLLM2: SmolLM2's GGUF file, fetched otherwise.
"""

import json
import subprocess
import sys

import anthropic
import openai

from serving import Server, run_tests, small_model

HI = [{"role": "user", "content": "Say hi."}]


def of(s):
    return openai.OpenAI(base_url=s.url + "/v1", api_key="none", max_retries=0)


def claude(s):
    return anthropic.Anthropic(base_url=s.url, api_key="none", max_retries=0)


def test_openai_chat(s):
    r = of(s).chat.completions.create(model="gpt-4o", messages=HI, max_tokens=8, temperature=0, n=2,
                                      logprobs=True, top_logprobs=2, seed=1)
    assert len(r.choices) == 2 and r.choices[0].message.content == r.choices[1].message.content
    assert len(r.choices[0].logprobs.content) == 8 and r.usage.completion_tokens == 16
    assert len(r.choices[0].logprobs.content[0].top_logprobs) == 2


def test_openai_stream(s):
    request = dict(model="x", messages=HI, max_tokens=8, temperature=0)
    whole = of(s).chat.completions.create(**request).choices[0].message.content
    text, usage = "", None
    usage_too = {"include_usage": True}
    stream = of(s).chat.completions.create(stream=True, stream_options=usage_too, **request)
    for chunk in stream:
        usage = chunk.usage or usage
        text += chunk.choices[0].delta.content or "" if chunk.choices else ""
    assert text == whole and usage.completion_tokens == 8


def test_openai_completions_and_models(s):
    client = of(s)
    assert client.models.list().data[0].id == "smol"
    r = client.completions.create(model="smol", prompt="One two", max_tokens=4, logprobs=1,
                                  echo=True)
    assert r.choices[0].text.startswith("One two") and r.choices[0].logprobs.tokens


def test_openai_errors(s):
    try:
        of(s).chat.completions.create(model="x", messages=HI, temperature=9)
    except openai.BadRequestError as e:
        assert e.param == "temperature" and e.code == "invalid_value"
    else:
        raise AssertionError("not refused")


def test_openai_responses(s):
    client = of(s)
    first = client.responses.create(model="x", input="Say hi.", max_output_tokens=6, temperature=0)
    assert first.output_text and first.status == "incomplete"
    assert client.responses.retrieve(first.id).output_text == first.output_text
    request = dict(model="x", input="Say hi.", max_output_tokens=6, temperature=0)
    with client.responses.stream(**request) as stream:
        text = "".join(e.delta for e in stream if e.type == "response.output_text.delta")
    assert text == first.output_text


def test_anthropic_messages(s):
    client = claude(s)
    request = dict(model="claude-x", messages=HI, max_tokens=8, system="Be kind.",
                   extra_body={"temperature": 0})
    r = client.messages.create(**request)
    assert r.content[0].text and r.stop_reason == "max_tokens" and r.usage.output_tokens == 8
    with client.messages.stream(**request) as stream:
        assert "".join(stream.text_stream) == r.content[0].text
        assert stream.get_final_message().stop_reason == "max_tokens"
    assert client.messages.count_tokens(model="x", messages=HI).input_tokens > 5


def test_anthropic_errors(s):
    try:
        claude(s).messages.create(model="x", messages=[], max_tokens=8)
    except anthropic.BadRequestError as e:
        assert e.body["error"]["type"] == "invalid_request_error"
    else:
        raise AssertionError("not refused")


def test_curl(s):
    """As the documentation writes it: no headers but curl's own, a body long enough for it to wait
    for 100 Continue, and a stream."""
    def curl(*arguments, data=None):
        out = subprocess.run(["curl", "-sS", "--fail-with-body", *arguments], capture_output=True,
                             text=True, timeout=60, input=data)
        assert out.returncode == 0, out
        return out.stdout
    body = json.dumps({"messages": HI, "max_tokens": 4, "temperature": 0, "user": "u" * 2000000})
    whole = json.loads(curl(s.url + "/v1/chat/completions", "-d", "@-", data=body))
    stream = json.dumps({"messages": HI, "max_tokens": 4, "temperature": 0, "stream": True})
    lines = curl("-N", s.url + "/v1/chat/completions", "-d", stream).split("\n\n")
    assert lines[-2:] == ["data: [DONE]", ""], lines
    text = "".join(json.loads(line[6:])["choices"][0]["delta"].get("content", "")
                   for line in lines[:-2])
    assert text == whole["choices"][0]["message"]["content"]
    assert curl(s.url) == "Ollama is running"
    lines = curl(s.url + "/api/generate", "-d", '{"model": "smol", "prompt": "Hi", "options": '
                 '{"num_predict": 3}}').splitlines()
    assert json.loads(lines[-1])["done"] and len(lines) == 4, lines


def main():
    s = Server(small_model())
    failed = run_tests([f for name, f in globals().items() if name.startswith("test_")], s)
    code = s.stop()
    sys.exit(1 if failed or code else 0)


main()
