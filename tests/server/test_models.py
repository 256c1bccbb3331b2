#!/usr/bin/env python3
"""test_models.py - several models behind one server, and models that fill in the middle.

The models are tiny ones of the build; needs Python alone. JANG: the program.
"""

import concurrent.futures
import json
import pathlib
import shutil
import subprocess
import sys
import tempfile

from serving import JANG, Server, run_tests

MODELS = pathlib.Path(JANG).resolve().parent / "tests/models"
HI = [{"role": "user", "content": "Nobody saw the boat."}]
CHAT = "/v1/chat/completions"
MARKS = {
    "qwen": ["<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"],
    "deepseek": ["<｜fim▁begin｜>", "<｜fim▁hole｜>", "<｜fim▁end｜>"],
    "codestral": ["[PREFIX]", "[SUFFIX]"],
}


def infill_model(folder, name):
    """A tiny model whose tokenizer has the marks of a family that fills in the middle."""
    model = pathlib.Path(folder) / name
    shutil.copytree(MODELS / "llama-f32", model)
    file = model / "tokenizer.json"
    data = json.loads(file.read_text())
    more = [*MARKS[name], "<|fim_pad|>"]
    data["added_tokens"] += [
        {"id": 300 + i, "content": text, "single_word": False, "lstrip": False, "rstrip": False,
         "normalized": False, "special": True} for i, text in enumerate(more)]
    file.write_text(json.dumps(data))
    return model


def answer(s, model, path=CHAT, **more):
    status, _, body = s.post(path, **({"model": model} if model else {}), max_tokens=6,
                             temperature=0, **(more or {"messages": HI}))
    assert status == 200, (status, body)
    return body


def test_each_is_listed(s):
    listed = s.ask("GET", "/v1/models")[2]["data"]
    assert [m["id"] for m in listed] == ["first", "qwen3-bf16", "lfm2-bf16"], listed
    tags = s.ask("GET", "/api/tags")[2]["models"]
    assert [m["name"] for m in tags] == ["first", "qwen3-bf16", "lfm2-bf16"]
    assert len({m["details"]["family"] for m in tags}) == 3
    for name in ["first", "llama", "qwen3-bf16", "q", "lfm2-bf16"]:
        assert s.ask("GET", f"/v1/models/{name}")[0] == 200, name
    assert s.ask("GET", "/v1/models/bf16")[0] == 404
    assert s.ask("GET", "/metrics")[2].count("jang_build_info{") == 3


def test_the_name_picks(s):
    first, second = answer(s, "first"), answer(s, "qwen3-bf16")
    assert first["model"] == "first" and second["model"] == "qwen3-bf16"
    assert first["system_fingerprint"] != second["system_fingerprint"]
    assert first["choices"] != second["choices"]
    for name in ["llama", "hub/first", "openai/first", "irst", "first:latest", None]:
        assert answer(s, name)["choices"] == first["choices"], name
    for name in ["q", "en3-bf16", "Qwen/qwen3-bf16"]:
        assert answer(s, name)["choices"] == second["choices"], name


def test_unknown_names_are_refused(s):
    for path, body in [(CHAT, {"messages": HI}), ("/v1/completions", {"prompt": "a"}),
                       ("/v1/responses", {"input": "a"}), ("/tokenize", {"content": "a"}),
                       ("/apply-template", {"messages": HI}), ("/v1/cache/warm", {"prompt": "a"})]:
        for name in ["gpt-4o", "bf16", "firs", ""]:
            status, _, reply = s.post(path, model=name, **body)
            error = reply["error"]
            assert status == 404 and error["code"] == "model_not_found", (path, name, reply)
            assert error["param"] == "model" and "qwen3-bf16" in error["message"]
    status, _, reply = s.post("/v1/messages", model="claude", max_tokens=3, messages=HI)
    assert status == 404 and reply["error"]["type"] == "not_found_error", reply
    for path, body in [("/api/chat", {"messages": HI}), ("/api/generate", {"prompt": ""})]:
        status, _, reply = s.post(path, model="gpt-4o", **body)
        assert status == 404 and isinstance(reply["error"], str), reply


def test_embedding_model(s):
    """It answers whoever asks for vectors, unless another is named."""
    for name in ["text-embedding-3-small", "lfm2-bf16", None]:
        body = answer(s, name, "/v1/embeddings", input="boat")
        assert body["model"] == "lfm2-bf16", body
    assert answer(s, "first", "/v1/embeddings", input="boat")["model"] == "first"
    assert answer(s, "any", "/api/embed", input="boat")["model"] == "lfm2-bf16"
    assert answer(s, "lfm2-bf16")["model"] == "lfm2-bf16"


def test_all_answer_at_once(s):
    alone = [answer(s, name) for name in ["first", "qwen3-bf16", "lfm2-bf16"]]
    with concurrent.futures.ThreadPoolExecutor(24) as pool:
        names = ["first", "qwen3-bf16", "lfm2-bf16"] * 8
        for i, body in enumerate(pool.map(lambda n: answer(s, n), names)):
            assert body["choices"] == alone[i % 3]["choices"]


def test_one_model_answers_for_any_name(_):
    s = Server(MODELS / "llama-f32", "--alias", "tiny", "--alias", "other")
    try:
        assert answer(s, "gpt-4o")["model"] == "tiny" == answer(s, "other")["model"]
    finally:
        assert s.stop() == 0


def test_equal_names_need_aliases(_):
    out = subprocess.run([JANG, "serve", "--model", MODELS / "llama-f32", "--model",
                          MODELS / "llama-f32", "--port", "0"], capture_output=True, text=True)
    assert out.returncode == 1 and "--alias" in out.stderr, out


def test_infill(_):
    """A suffix becomes the prompt that the family was trained on."""
    with tempfile.TemporaryDirectory() as folder:
        for name, order in [("qwen", "BSM"), ("deepseek", "BSM"), ("codestral", "SB")]:
            s = Server(infill_model(folder, name))
            try:
                ids = {key: s.post("/tokenize", content=text)[2]["tokens"]
                       for key, text in [("B", "def the"), ("S", "boat ")]}
                marks = dict(zip("BSM", [300, 301, 302]))
                prompt = [i for key in order for i in [marks[key], *ids.get(key, [])]]
                # <|fim_pad|> ends the one, and would be a token of the other
                end = {str(300 + len(MARKS[name])): -100}
                expected = answer(s, None, "/v1/completions", prompt=prompt, logit_bias=end)
                body = answer(s, None, "/v1/completions", prompt="def the", suffix="boat ",
                              logit_bias=end)
                assert body["choices"] == expected["choices"], (name, body, expected)
                assert body["usage"]["prompt_tokens"] == len(prompt)
                ollama = s.post("/api/generate", prompt="def the", suffix="boat ", stream=False,
                                options={"temperature": 0, "num_predict": 6})[2]
                assert ollama["prompt_eval_count"] == len(prompt), ollama
                assert "insert" in s.post("/api/show", model=name)[2]["capabilities"]
                forced = answer(s, None, "/v1/completions", prompt="def the", suffix="boat ",
                                logit_bias={key: 100 for key in end})
                assert forced["choices"][0]["finish_reason"] == "stop", forced
                for more in [{"prompt": [5, 6]}, {"prompt": "a", "echo": True}]:
                    assert s.post("/v1/completions", suffix="b", **more)[0] == 400
            finally:
                assert s.stop() == 0


def test_infill_is_refused_elsewhere(s):
    for path in ["/v1/completions", "/api/generate"]:
        status, _, reply = s.post(path, model="first", prompt="a", suffix="b")
        assert status == 422 and "first does not fill in the middle" in str(reply), reply
        assert s.post(path, model="first", prompt="a", suffix="", max_tokens=1,
                      options={"num_predict": 1})[0] == 200


def main():
    s = Server(MODELS / "llama-f32", "--model", str(MODELS / "qwen3-bf16"), "--embedding-model",
               str(MODELS / "lfm2-bf16"), "--alias", "first", "--alias", "llama",
               "--alias", "qwen3-bf16=qwen3-bf16", "--alias", "q=qwen3-bf16")
    failed = run_tests([f for name, f in globals().items() if name.startswith("test_")], s)
    code = s.stop()
    sys.exit(1 if failed or code else 0)


main()
