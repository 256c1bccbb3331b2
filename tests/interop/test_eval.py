"""test_eval.py - `jang eval` against the same figures worked out with numpy from `jang logits`, and
programs in its sandbox."""

import json

import numpy as np

from common import MODELS, Suite, jang

TEXT = "The small boat crossed the lake. Nobody saw it land; the wind had turned, and it was late.\n" * 9
CONTEXT = 48
REFERENCE, MODEL = MODELS / "llama-f32", MODELS / "mlx-llama-4bit-g64"


def log_softmax(rows):
    rows = rows.astype(np.float64)
    rows = rows - rows.max(axis=1, keepdims=True)
    return rows - np.log(np.exp(rows).sum(axis=1, keepdims=True))


def logits_of(suite, model, ids):
    path = suite.directory / "logits.npy"
    jang("logits", "--model", model, "--ids", ",".join(map(str, ids)), "--exact", "--output", path)
    return np.load(path)


def windows_of(model):
    ids = list(map(int, jang("tokenize", "--model", model, "--no-special", stdin=TEXT).split(",")))
    begin = jang("tokenize", "--model", model, "--add-special", stdin="").strip()
    begin = [int(begin.split(",")[0])] if begin else []
    part = CONTEXT - len(begin)
    cut = [begin + ids[i : i + part] for i in range(0, len(ids), part)]
    return [window for window in cut if len(window) > 1]


def expected(suite):
    """Token by token over all windows: KL, squared error, nll; with the cluster errors of KL's mean
    and of its 90th percentile, that by Woodruff's method."""
    kl, mse, nll, same, sums, sizes = [], [], [], 0, [], []
    for ids in windows_of(REFERENCE):
        a, b = logits_of(suite, REFERENCE, ids), logits_of(suite, MODEL, ids)
        p, q = log_softmax(a), log_softmax(b)
        row = (np.exp(p) * (p - q)).sum(axis=1)
        kl.extend(row)
        sums.append(row.sum())
        sizes.append(len(row))
        mse.extend(((a.astype(np.float64) - b) ** 2).mean(axis=1))
        nll.extend(-q[np.arange(len(ids) - 1), ids[1:]])
        same += int((a.argmax(axis=1) == b.argmax(axis=1)).sum())
    n, k = len(kl), len(sums)
    off = np.array(sums) - np.mean(kl) * np.array(sizes)
    error = np.sqrt(k / (k - 1) * (off**2).sum()) / n
    kl = np.array(kl)
    at = lambda share: np.sort(kl)[min(max(int(np.ceil(share * n)), 1), n) - 1]
    cluster = np.repeat(np.arange(k), sizes)
    off = np.bincount(cluster, kl <= at(0.9)) - 0.9 * np.array(sizes)
    spread = np.sqrt(k / (k - 1) * (off**2).sum()) / n
    return {"kl": np.mean(kl), "error": error, "mse": np.mean(mse), "nll": np.mean(nll),
            "p99": at(0.99), "p90_error": (at(0.9 + spread) - at(0.9 - spread)) / 2,
            "same": same / n, "n": n}


def check_measures(suite):
    text, stored = suite.directory / "text.txt", suite.directory / "reference.logits"
    text.write_text(TEXT)
    options = ["--text", text, "--context", CONTEXT, "--exact", "--json"]
    want = expected(suite)
    first = json.loads(jang("eval", "kl", MODEL, "--reference", REFERENCE, "--save-reference", stored, *options))
    again = json.loads(jang("eval", "kl", MODEL, "--reference-logits", stored, *options))
    alone = json.loads(jang("eval", "ppl", MODEL, *options))
    for name, result, limit in (("kl", first, 1e-5), ("kl, stored reference", again, 1e-4)):
        got = result[0]["texts"][-1]
        for figure, value in (
            ("mean KL", got["kl"]["mean"] / want["kl"]),
            ("its error", got["kl"]["error"] / want["error"]),
            ("its 99th percentile", got["kl"]["p99"] / want["p99"]),
            ("logit MSE", got["logit_mse"]["mean"] / want["mse"]),
            ("perplexity", got["perplexity"] / np.exp(want["nll"])),
        ):
            suite.below(f"eval {name}: {figure} as numpy has it", abs(value - 1), limit)
        value = got["kl"]["p90_error"] / want["p90_error"]  # of the difference of two values
        suite.below(f"eval {name}: the 90th percentile's error", abs(value - 1), 100 * limit)
        suite.below(f"eval {name}: same top", abs(got["same_top"] - want["same"]), 1.5 / want["n"])
    ratio = alone[0]["texts"][-1]["perplexity"] / np.exp(want["nll"])
    suite.below("eval ppl: perplexity as numpy has it", abs(ratio - 1), 1e-5)


def encode(text):
    ids = jang("tokenize", "--model", MODEL, "--add-special", "--no-special", stdin=text)
    return list(map(int, ids.split(",")))


def check_choices(suite):
    """The choice whose letter is likeliest after the prompt, by numpy from the logits."""
    data = suite.directory / "mc.jsonl"
    rows = [{"question": f"Which word is number {i}?", "choices": ["boat", "lake", "wind"], "answer": 0}
            for i in range(4)]
    likeliest = []
    for row in rows:
        choices = "".join(f"\n{c}. {t}" for c, t in zip("ABC", row["choices"]))
        prompt = row["question"] + choices + "\nAnswer:"
        scores = []
        for letter in "ABC":
            before, ids = encode(prompt), encode(f"{prompt} {letter}")
            start = next((i for i, (x, y) in enumerate(zip(before, ids)) if x != y), len(before))
            rows_of = log_softmax(logits_of(suite, MODEL, ids))
            scored = range(min(start, len(ids) - 1), len(ids))
            scores.append(sum(rows_of[i - 1, ids[i]] for i in scored))
        likeliest.append(int(np.argmax(scores)))
    for shift in (0, 1):
        for row, choice in zip(rows, likeliest):
            row["answer"] = (choice + shift) % 3
        data.write_text("".join(json.dumps(row) + "\n" for row in rows))
        got = json.loads(jang("eval", "mc", MODEL, "--data", data, "--exact", "--json"))[0]["accuracy"]
        kind = "right" if shift == 0 else "wrong"
        suite.check(f"eval mc: {kind} answers", got == 1 - shift, str(got))


def check_code(suite):
    """Programs whose end does not depend on what the model adds: one token of a comment."""
    def program(body):
        return {"task_id": "t", "prompt": f"def f(x):\n{body}\n#", "entry_point": "f",
                "test": "def check(f):\n    assert f(2) == 4\n"}

    escape = suite.directory / "escaped"
    network = ("    import socket\n    s = socket.socket()\n    s.settimeout(1)\n    try:\n"
               "        s.connect(('127.0.0.1', {port}))\n    except OSError:\n"
               "        return 2 * x\n    return 0")
    import socket

    listener = socket.create_server(("127.0.0.1", 0))
    cases = [
        ("right", program("    return 2 * x"), 1.0),
        ("wrong", program("    return x"), 0.0),
        ("endless", program("    while True:\n        pass"), 0.0),
        ("eats memory", program("    return len(bytearray(1 << 40)) and 4"), 0.0),
        ("writes where it runs", program("    open('a', 'w').write('b')\n    return 2 * x"), 1.0),
        ("writes elsewhere", program(f"    open({str(escape)!r}, 'w')\n    return 2 * x"), 0.0),
        ("sees no network", program(network.format(port=listener.getsockname()[1])), 1.0),
    ]
    for name, task, wanted in cases:
        data = suite.directory / "code.jsonl"
        data.write_text(json.dumps(task) + "\n")
        try:
            got = json.loads(jang("eval", "code", MODEL, "--data", data, "-n", 1, "--seconds", 1, "--json"))
        except Exception as error:  # a kernel that cannot isolate says so
            if "take network and writing away" in str(error):
                suite.skip(f"eval code: {name}", "this system cannot isolate a process")
                continue
            raise
        suite.check(f"eval code: {name}", got[0]["pass@1"]["mean"] == wanted, str(got))
    suite.check("eval code: nothing was written elsewhere", not escape.exists())


def check_compare(suite):
    text, prompts, report = (suite.directory / n for n in ("text.txt", "prompts.txt", "report"))
    text.write_text(TEXT)
    prompts.write_text("<script>alert(1)</script> & so on\n")
    jang("eval", "compare", MODEL, MODELS / "mlx-llama-mixed-3-6", "--reference", REFERENCE, "--text", text,
         "--context", CONTEXT, "--prompts", prompts, "--max-answer", 4, "--report", report)
    page = (report / "index.html").read_text()
    results = json.loads((report / "results.json").read_text())
    suite.check("eval compare: text is escaped", "<script" not in page and "&lt;script&gt;" in page)
    suite.check("eval compare: plot, heat maps, answers",
                all(part in page for part in ("<svg", "class='heat'", "class='answers'")))
    suite.check("eval compare: results", [m["model"] for m in results["models"]] ==
                [str(MODEL), str(MODELS / "mlx-llama-mixed-3-6")] and len(results["answers"]) == 1)


def main():
    suite = Suite()
    for check in (check_measures, check_choices, check_code, check_compare):
        with suite.case(check.__name__):
            check(suite)
    suite.finish()


if __name__ == "__main__":
    main()
