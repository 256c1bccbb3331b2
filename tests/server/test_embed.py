#!/usr/bin/env python3
"""test_embed.py - embeddings and rerank, by plain HTTP and by the clients of OpenAI and Ollama.

JANG: the program; JANG_SMOLLM2: SmolLM2's GGUF file, fetched otherwise.
"""

import base64
import json
import math
import pathlib
import struct
import sys

from serving import JANG, Server, run_tests, small_model

TEXTS = ["a red apple", "a green pear", "the speed of light in glass"]


def ask(s, path, want=200, **body):
    status, _, reply = s.post(path, **body)
    assert status == want, (status, reply)
    return reply


def vectors(s, **body):
    return [d["embedding"] for d in ask(s, "/v1/embeddings", model="x", **body)["data"]]


def tiny(name):
    """One of the tiny models that embed or judge (tests/golden/encoders), and what it must say."""
    model = pathlib.Path(JANG).resolve().parent / "tests/encoders" / name
    return model, json.loads((model / "expected.json").read_text())


def test_pooled_as_the_model_says(s):
    for name in ("bert-mean-f32", "xlm-roberta-cls-bf16", "gemma3-dense-f32"):
        model, expected = tiny(name)
        own = Server(model)
        try:
            for got, wanted in zip(vectors(own, input=expected["texts"]), expected["embeddings"]):
                assert len(got) == len(wanted)
                assert all(abs(a - b) < 1e-3 for a, b in zip(got, wanted)), name
            assert ask(own, "/api/embed", model="x", input="boat " * 2000)["embeddings"]
            ask(own, "/v1/embeddings", want=400, model="x", input="boat " * 2000)
            if "gemma" not in name:
                chat = {"model": "x", "messages": [{"role": "user", "content": "hi"}]}
                assert own.post("/v1/chat/completions", **chat)[0] in (400, 422)
                ask(own, "/v1/completions", want=422, model="x", prompt="hi")
        finally:
            own.stop()


def test_cross_encoders_rank(s):
    for name in ("bert-rank-f32", "xlm-roberta-rank-f16"):
        model, expected = tiny(name)
        own = Server(model)
        try:
            for (query, document), score in zip(expected["pairs"], expected["scores"]):
                reply = ask(own, "/v1/rerank", model="x", query=query, documents=[document, "boat"])
                (got,) = [r["relevance_score"] for r in reply["results"] if r["index"] == 0]
                assert abs(got - 1 / (1 + math.exp(-score))) < 1e-3, (name, got, score)
        finally:
            own.stop()
    model, expected = tiny("qwen3-rank-bf16")  # a classifier that is asked in words
    own = Server(model)
    try:
        for (query, document), score in zip(expected["pairs"], expected["judged"]):
            reply = ask(own, "/v1/rerank", model="x", query=query, documents=[document])
            got = reply["results"][0]["relevance_score"]
            assert abs(got - 1 / (1 + math.exp(-score))) < 1e-3, (got, score)
    finally:
        own.stop()
    model, _ = tiny("roberta-labels-bf16")
    own = Server(model)
    try:
        ask(own, "/v1/rerank", want=422, model="x", query="a", documents=["b"])
    finally:
        own.stop()


def length(v):
    return math.sqrt(sum(x * x for x in v))


def test_embeddings(s):
    reply = ask(s, "/v1/embeddings", model="x", input=TEXTS)
    assert reply["object"] == "list" and [d["index"] for d in reply["data"]] == [0, 1, 2]
    assert reply["usage"]["prompt_tokens"] == reply["usage"]["total_tokens"] > 5
    many = [d["embedding"] for d in reply["data"]]
    assert all(abs(length(v) - 1) < 1e-4 for v in many)
    alone = [vectors(s, input=text)[0] for text in TEXTS]
    assert alone == many
    assert many[0] != many[1]


def test_ids_are_inputs_too(s):
    ids = ask(s, "/tokenize", content=TEXTS[0], add_special=True)["tokens"]
    assert vectors(s, input=ids) == vectors(s, input=[ids]) == vectors(s, input=TEXTS[0])


def test_base64(s):
    (text,) = vectors(s, input=TEXTS[0], encoding_format="base64")
    data = base64.b64decode(text, validate=True)
    packed = struct.unpack(f"<{len(data) // 4}f", data)
    (plain,) = vectors(s, input=TEXTS[0])
    assert len(packed) == len(plain)
    assert all(abs(a - b) < 1e-6 for a, b in zip(packed, plain))


def test_dimensions(s):
    (short,), (whole,) = vectors(s, input=TEXTS[0], dimensions=16), vectors(s, input=TEXTS[0])
    assert len(short) == 16 and abs(length(short) - 1) < 1e-4
    scale = length(whole[:16])
    assert all(abs(a - b / scale) < 1e-5 for a, b in zip(short, whole))


def test_more_inputs_than_the_queue_holds(s):
    found = vectors(s, input=[f"number {i}" for i in range(40)])
    assert len(found) == 40 and found[7] == vectors(s, input="number 7")[0]


def test_errors(s):
    for body in [{"input": []}, {"input": ""}, {"input": 3}, {"input": ["a", 3]}, {},
                 {"input": "a", "dimensions": 0}, {"input": "a", "encoding_format": "hex"},
                 {"input": [10 ** 9]}, {"input": "word " * 400}]:
        ask(s, "/v1/embeddings", 400, model="x", **body)


def test_ollama(s):
    reply = ask(s, "/api/embed", model="x", input=TEXTS[:2], dimensions=8)
    assert len(reply["embeddings"]) == 2 and len(reply["embeddings"][0]) == 8
    assert reply["prompt_eval_count"] > 2
    old = ask(s, "/api/embeddings", model="x", prompt=TEXTS[0])["embedding"]
    assert old == vectors(s, input=TEXTS[0])[0]
    ask(s, "/api/embed", model="x", input="word " * 400)  # cut to the context
    ask(s, "/api/embed", 400, model="x", input="word " * 400, truncate=False)


def test_rerank(s):
    reply = ask(s, "/v1/rerank", model="x", query="fruit", documents=TEXTS, return_documents=True)
    scores = [r["relevance_score"] for r in reply["results"]]
    assert scores == sorted(scores, reverse=True) and all(0 <= x <= 1 for x in scores)
    assert sorted(r["index"] for r in reply["results"]) == [0, 1, 2]
    assert all(r["document"]["text"] == TEXTS[r["index"]] for r in reply["results"])
    assert reply["usage"]["total_tokens"] > 30
    top = ask(s, "/rerank", model="x", query="fruit", documents=[{"text": t} for t in TEXTS],
              top_n=1)["results"]
    assert top == [{k: reply["results"][0][k] for k in ("index", "relevance_score")}]
    for body in [{"query": "a"}, {"documents": ["a"]}, {"query": "a", "documents": []},
                 {"query": "a", "documents": [1]}]:
        ask(s, "/v1/rerank", 400, model="x", **body)


def test_clients(s):
    import ollama
    import openai

    client = openai.OpenAI(base_url=s.url + "/v1", api_key="none")
    reply = client.embeddings.create(model="x", input=TEXTS)
    whole = vectors(s, input=TEXTS)
    assert all(abs(a - b) < 1e-6 for a, b in zip(reply.data[2].embedding, whole[2]))
    reply = ollama.Client(host=s.url).embed(model="x", input=TEXTS)
    assert len(reply.embeddings) == 3


def main():
    s = Server(small_model(), "--parallel", "4", "--queue", "8", "--context", "256")
    tests = [f for name, f in globals().items() if name.startswith("test_")]
    failed = run_tests(tests, s)
    code = s.stop()
    sys.exit(1 if failed or code else 0)


main()
