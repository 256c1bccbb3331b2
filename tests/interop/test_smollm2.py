"""test_smollm2.py - the real model against transformers' stored logits and mlx-lm's text."""

import json
import os

import mlx.core as mx
import numpy as np
from common import ROOT, Suite, convert, error, jang, logits, mean_kl, mlx_logits, mlx_open

GOLDEN = ROOT / "tests/golden/smollm2"
QUESTIONS = [
    "What is the capital of France?",
    "Write a sentence about a cat.",
    "What is 2 + 3?",
    "Name three colors.",
    "Why do leaves fall in autumn?",
    "Say hello in Spanish.",
    "Who wrote Romeo and Juliet?",
    "What does a compiler do?",
    "List two uses of salt.",
    "Is ice lighter than water?",
]
N_TOKENS = 24
# Two logits closer than this share of the row's deviation are a tie: sums in another order move a
# logit by up to 2e-3 of it, each of the two. The default path, whose 8-bit activations move logits
# further, is held by its KL instead.
TIE = 4e-3


def unquantized(suite, gguf):
    """The GGUF's weights as f32, against transformers' own reading of the same file."""
    model = convert(gguf, suite.directory / "f32", "--profile", "f32")
    golden = json.loads((GOLDEN / "prompt.json").read_text())
    expected, rows = np.load(GOLDEN / "logits.npy"), np.load(GOLDEN / "rows.npy")
    line = json.dumps(golden["text"]) + "\n"
    ids = json.loads(jang("tokenize", "--model", model, "--lines", stdin=line))
    suite.check("ids of the prompt", ids == golden["ids"])
    for options in ([], ["--exact"], ["--exact", "--step"]):
        ours = logits(suite, model, golden["ids"], *options)
        name = " ".join(["f32", *options])
        worst = np.abs(ours[:, golden["columns"]] - expected).max() / golden["std"]
        suite.below(f"{name}, 1000 columns", float(worst), 1e-3)
        total = np.log(np.exp(log_safe(ours)).sum(-1)) + ours.max(-1)
        suite.below(f"{name}, log sum exp", float(np.abs(total - rows[:, 1]).max()), 1e-2)
        suite.check(f"{name}, largest", bool((ours.argmax(-1) == rows[:, 0]).all()))
    return golden["ids"]


def log_safe(x):
    return x.astype(np.float64) - x.max(-1, keepdims=True)


def quantized(suite, gguf, profile, ids):
    """f32 activations against mlx-lm's arithmetic on the same weights; then 8-bit ones."""
    output = convert(gguf, suite.directory / profile, "--profile", profile, "--method", "rtn")
    model, _ = mlx_open(output)
    exact = logits(suite, output, ids, "--exact")
    suite.below(f"{profile} --exact against mlx-lm", error(exact, mlx_logits(model, ids)), 2e-3)
    suite.below(f"{profile} mean KL", mean_kl(logits(suite, output, ids), exact), 1e-3)
    return output


def same_text(suite, output):
    """Greedy answers to ten questions, the model's own template around them."""
    from mlx_lm.utils import dequantize_model

    model, tokenizer = mlx_open(output)
    model = dequantize_model(model)  # the same numbers, much faster than mlx's 4-bit products
    for question in QUESTIONS:
        with suite.case(question):
            message = [{"role": "user", "content": question}]
            prompt = list(tokenizer.apply_chat_template(message, add_generation_prompt=True))
            asked = ["--model", output, "-p", question, "-n", N_TOKENS, "--temp", 0, "--exact"]
            text = jang("run", *asked)
            theirs = greedy(model, prompt, tokenizer.eos_token_ids)
            suite.check(*agreement(question, text, model, tokenizer, prompt, theirs))


def greedy(model, prompt, end):
    from mlx_lm.models.cache import make_prompt_cache

    cache = make_prompt_cache(model)
    ids, step = [], prompt
    while len(ids) < N_TOKENS:
        best = int(mx.argmax(model(mx.array([step]), cache=cache)[0, -1]))
        if best in end:
            break
        ids.append(best)
        step = [best]
    return ids


def agreement(question, text, model, tokenizer, prompt, theirs):
    """Equal texts, or at the first token where they part the two were a tie for mlx-lm."""
    expected = tokenizer.decode(theirs)
    if text.strip() == expected.strip():
        return question, True, repr(expected[:40])
    ours = tokenizer.encode(text.strip("\n"), add_special_tokens=False)
    n = 0
    while n < min(len(ours), len(theirs)) and ours[n] == theirs[n]:
        n += 1
    row = mlx_logits(model, prompt + theirs[:n])[-1]
    top = np.sort(row)[-2:]
    gap = float((top[1] - top[0]) / row.std())
    detail = f"parts at token {n}, gap {gap:.4f}: {text!r} or {expected!r}"
    return question, gap < TIE, detail


def main():
    suite = Suite()
    gguf = os.environ.get("JANG_SMOLLM2")
    if not gguf:
        suite.skip("SmolLM2", "JANG_SMOLLM2 does not name the GGUF (scripts/fetch-model)")
        suite.finish()
    ids = []
    with suite.case("f32"):
        ids = unquantized(suite, gguf)
    for profile in ("JANG_2S", "JANG_3M", "mixed_4_6"):
        with suite.case(profile):
            quantized(suite, gguf, profile, ids)
    with suite.case("JANG_4M"):
        same_text(suite, quantized(suite, gguf, "JANG_4M", ids))
    suite.finish()


main()
