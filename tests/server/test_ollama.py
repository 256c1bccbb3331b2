#!/usr/bin/env python3
"""test_ollama.py - Ollama's dialect: by plain HTTP, and by its own Python package.

JANG: the program; JANG_SMOLLM2: SmolLM2's GGUF file, fetched otherwise.
"""

import hashlib
import http.client
import json
import re
import sys

from serving import Server, run_tests, small_model

HI = [{"role": "user", "content": "Say hi."}]
SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string", "maxLength": 12}, "days": {"type": "integer",
                                                                         "maximum": 9}},
    "required": ["city", "days"],
}
TIME = re.compile(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z$")
COLD = {"temperature": 0, "num_predict": 8}


def lines(s, path, **body):
    c = http.client.HTTPConnection("127.0.0.1", s.port, timeout=60)
    c.request("POST", path, json.dumps(body))
    r = c.getresponse()
    text = r.read()
    c.close()
    assert r.status == 200, (r.status, text)
    assert r.getheader("Content-Type") == "application/x-ndjson"
    return [json.loads(line) for line in text.splitlines()]


def ask(s, path, want=200, **body):
    status, _, reply = s.post(path, **body)
    assert status == want, (status, reply)
    return reply


# ---- The model ----------------------------------------------------------------------------------


def test_version_and_lists(s):
    assert s.ask("GET", "/")[2] == "Ollama is running"
    assert re.match(r"\d+\.\d+\.\d+$", s.ask("GET", "/api/version")[2]["version"])
    (model,) = s.ask("GET", "/api/tags")[2]["models"]
    assert model["name"] == model["model"]
    files = [small_model() / name for name in ["model.safetensors.index.json", "config.json"]]
    data = next(f.read_bytes() for f in files if f.exists())
    assert model["digest"] == hashlib.sha256(data).hexdigest()
    assert TIME.match(model["modified_at"]) and model["size"] > 1e6
    assert model["details"]["format"] == "jang" and model["details"]["parameter_size"].endswith("M")
    (running,) = s.ask("GET", "/api/ps")[2]["models"]
    assert running["digest"] == model["digest"] and running["context_length"] > 0


def test_num_ctx_is_a_limit(s):
    """It bounds prompt and answer together, and never cuts the prompt."""
    raw = {"model": "x", "prompt": "Once upon a time there was", "raw": True, "stream": False}
    free = ask(s, "/api/generate", **raw, options={**COLD, "num_predict": 40})
    n = free["prompt_eval_count"]
    short = ask(s, "/api/generate", **raw, options={**COLD, "num_predict": 40, "num_ctx": n + 3})
    assert short["eval_count"] == 3 and short["done_reason"] == "length"
    assert free["response"].startswith(short["response"])
    error = ask(s, "/api/generate", 400, **raw, options={**COLD, "num_ctx": n})["error"]
    assert f"the context asked for is {n}" in error


def test_show(s):
    name = s.ask("GET", "/api/tags")[2]["models"][0]["name"]
    for asked in [name, name + ":latest"]:
        shown = ask(s, "/api/show", model=asked)
        family = shown["model_info"]["general.architecture"]
        assert shown["model_info"][family + ".context_length"] > 0
        assert "completion" in shown["capabilities"] and shown["template"]
    assert "not found" in ask(s, "/api/show", 404, model="other")["error"]


def test_models_are_not_changed(s):
    name = s.ask("GET", "/api/tags")[2]["models"][0]["name"]
    assert ask(s, "/api/pull", model=name) == {"status": "success"}
    ask(s, "/api/pull", 404, model="other")
    ask(s, "/api/create", 501, model="x")
    assert s.ask("DELETE", "/api/delete", {"model": "x"})[0] == 501


# ---- Answers ------------------------------------------------------------------------------------


def test_chat_streams_by_default(s):
    parts = lines(s, "/api/chat", model="x", messages=HI, options=COLD)
    whole = ask(s, "/api/chat", model="x", messages=HI, options=COLD, stream=False)
    assert "".join(p["message"]["content"] for p in parts) == whole["message"]["content"] != ""
    assert all(p["message"]["role"] == "assistant" and TIME.match(p["created_at"]) for p in parts)
    assert [p["done"] for p in parts] == [False] * (len(parts) - 1) + [True]
    for end in [parts[-1], whole]:
        assert end["done_reason"] in ("stop", "length")
        assert end["eval_count"] > 0 and end["prompt_eval_count"] > 0
        assert end["total_duration"] >= end["eval_duration"] > 0


def test_generate(s):
    parts = lines(s, "/api/generate", model="x", prompt="Say hi.", options=COLD)
    whole = ask(s, "/api/generate", model="x", prompt="Say hi.", options=COLD, stream=False)
    chat = ask(s, "/api/chat", model="x", messages=HI, options=COLD, stream=False)
    assert "".join(p["response"] for p in parts) == whole["response"] == chat["message"]["content"]
    raw = ask(s, "/api/generate", model="x", prompt="Once upon a", raw=True, options=COLD,
              stream=False)
    assert raw["response"] and raw["prompt_eval_count"] < whole["prompt_eval_count"]
    system = ask(s, "/api/generate", model="x", prompt="Hi", system="You are a cat.", options=COLD,
                 stream=False)
    assert system["prompt_eval_count"] > 5


def test_generate_goes_on_from_a_context(s):
    """The ids of prompt and answer; what comes after them sees them."""
    first = ask(s, "/api/generate", model="x", prompt="My name is Ada.", options=COLD, stream=False)
    ids = first["context"]
    assert len(ids) >= first["prompt_eval_count"] + first["eval_count"]
    text = ask(s, "/detokenize", tokens=ids)["content"]
    assert "My name is Ada." in text and first["response"].strip() in text
    parts = lines(s, "/api/generate", model="x", prompt="And I?", context=ids, options=COLD)
    alone = ask(s, "/api/generate", model="x", prompt="And I?", options=COLD, stream=False)
    assert parts[-1]["context"][:len(ids)] == ids
    assert parts[-1]["prompt_eval_count"] == len(ids) + alone["prompt_eval_count"]
    assert "context" not in parts[0]
    for wrong in ["x"], [1, -1], [10 ** 9], "x", [1.5]:
        assert "context" in ask(s, "/api/generate", 400, model="x", prompt="a", context=wrong)["error"]
    raw = {"model": "x", "prompt": "a", "raw": True}
    assert "context" not in ask(s, "/api/generate", **raw, options=COLD, stream=False)
    assert "context" in ask(s, "/api/generate", 400, **raw, context=ids)["error"]
    assert "system" in ask(s, "/api/generate", 400, **raw, system="A cat.")["error"]
    assert "Go" in ask(s, "/api/generate", 422, model="x", prompt="a", template="{{ .Prompt }}")["error"]


def test_empty_prompts_load(s):
    assert ask(s, "/api/chat", model="x", messages=[])["done_reason"] == "load"
    assert ask(s, "/api/generate", model="x")["done_reason"] == "load"
    assert ask(s, "/api/generate", model="x", keep_alive=0)["done_reason"] == "unload"


def test_format(s):
    options = {**COLD, "num_predict": 60}
    whole = ask(s, "/api/chat", model="x", messages=HI, format=SCHEMA, options=options,
                stream=False)
    value = json.loads(whole["message"]["content"])
    assert isinstance(value["days"], int) and len(value["city"]) <= 12
    whole = ask(s, "/api/generate", model="x", prompt="JSON, short.", format="json",
                options={**options, "num_predict": 200}, stream=False)
    if whole["done_reason"] == "stop":
        assert isinstance(json.loads(whole["response"]), dict)
    assert "format" in ask(s, "/api/chat", 400, model="x", messages=HI, format="xml")["error"]
    ask(s, "/api/chat", 422, model="x", messages=HI, format={"not": {}})


def test_options(s):
    one = {"temperature": 1.2, "seed": 7, "num_predict": 12, "top_k": 30, "top_p": 0.9,
           "repeat_penalty": 1.1, "repeat_last_n": 64}
    first, again = [ask(s, "/api/chat", model="x", messages=HI, options=one, stream=False)
                    for _ in range(2)]
    assert first["message"] == again["message"]
    long = ask(s, "/api/generate", model="x", prompt="one two three", raw=True, stream=False,
               options={"temperature": 0, "num_predict": 5})
    assert long["eval_count"] <= 5 and long["done_reason"] == "length"
    word = long["response"].split()[1]
    cut = ask(s, "/api/generate", model="x", prompt="one two three", raw=True, stream=False,
              options={"temperature": 0, "num_predict": 5, "stop": [word]})
    assert word not in cut["response"] and cut["done_reason"] == "stop"
    for bad in [{"temperature": "hot"}, {"top_p": 3}, {"num_predict": 1.5}]:
        reply = ask(s, "/api/chat", 400, model="x", messages=HI, options=bad)
        assert "options." + list(bad)[0] in reply["error"], reply


def test_logprobs(s):
    whole = ask(s, "/api/chat", model="x", messages=HI, options=COLD, stream=False, logprobs=True,
                top_logprobs=2)
    assert len(whole["logprobs"]) == whole["eval_count"]
    assert len(whole["logprobs"][0]["top_logprobs"]) == 2


def test_tool_calls_have_objects(s):
    tool = {"type": "function", "function": {"name": "get_weather", "parameters": SCHEMA}}
    messages = HI + [
        {"role": "assistant", "content": "", "tool_calls": [
            {"function": {"name": "get_weather", "arguments": {"city": "Rome", "days": 1}}}]},
        {"role": "tool", "tool_name": "get_weather", "content": "sunny"}]
    whole = ask(s, "/api/chat", model="x", messages=messages, tools=[tool], stream=False,
                options={**COLD, "num_predict": 40})
    for call in whole["message"].get("tool_calls", []):
        assert isinstance(call["function"]["arguments"], dict)
    reply = ask(s, "/api/chat", 400, model="x", messages=HI, tools=[{"function": {}}])
    assert "tools[0].function.name" in reply["error"]


def test_errors(s):
    assert set(ask(s, "/api/chat", 400, model="x", messages="hi")) == {"error"}
    ask(s, "/api/chat", 422, model="x", messages=[{**HI[0], "images": ["aGk="]}])
    ask(s, "/api/generate", 422, model="x", prompt="a", suffix="b")
    ask(s, "/api/chat", 400, model="x", messages=[{"role": "user", "content": "long " * 9000}])
    assert set(s.ask("GET", "/api/none")[2]) == {"error"}


# ---- The client ---------------------------------------------------------------------------------


def test_python_client(s):
    import ollama

    client = ollama.Client(host=s.url)
    name = client.list().models[0].model
    assert client.show(name).capabilities
    whole = client.chat(model=name, messages=HI, options=COLD)
    parts = list(client.chat(model=name, messages=HI, options=COLD, stream=True))
    assert "".join(p.message.content for p in parts) == whole.message.content
    assert client.generate(model=name, prompt="Say hi.", options=COLD).response
    assert json.loads(client.chat(model=name, messages=HI, format=SCHEMA,
                                  options={**COLD, "num_predict": 60}).message.content)
    try:
        client.show("other")
        raise AssertionError("an unknown model was shown")
    except ollama.ResponseError as e:
        assert e.status_code == 404


def main():
    s = Server(small_model())
    tests = [f for name, f in globals().items() if name.startswith("test_")]
    failed = run_tests(tests, s)
    code = s.stop()
    sys.exit(1 if failed or code else 0)


main()
