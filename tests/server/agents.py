#!/usr/bin/env python3
"""agents.py - aider and lm-eval at work on a server, as their users start them.

    agents.py AIDER_VENV LM_EVAL_VENV

scripts/test clients makes the two environments and runs this. Not in every test: the packages
have 1.4 GB and take four minutes to install. JANG: the program; JANG_SMOLLM2: SmolLM2's GGUF file,
fetched otherwise.
"""

import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile

from serving import Server, run_tests, small_model

# The model's answer is forced, since what matters is what becomes of it.
EDIT = "a.py\n```\ndef answer():\n    return 42\n```\n"
SETTINGS = """
- name: openai/smol
  edit_format: whole
  use_repo_map: false
  streaming: {streaming}
  extra_params:
    max_tokens: 64
    extra_body:
      grammar: {grammar}
"""
MC = """
task: smoke_choice
dataset_path: json
dataset_kwargs:
  data_files: {folder}/choice.jsonl
test_split: train
output_type: multiple_choice
doc_to_text: "{{{{question}}}}"
doc_to_choice: "{{{{choices}}}}"
doc_to_target: "{{{{answer}}}}"
metric_list:
  - metric: acc
"""
GENERATE = """
task: smoke_generate
dataset_path: json
dataset_kwargs:
  data_files: {folder}/generate.jsonl
test_split: train
output_type: generate_until
doc_to_text: "{{{{question}}}}"
doc_to_target: "{{{{answer}}}}"
generation_kwargs:
  until: [". "]
  max_gen_toks: 8
metric_list:
  - metric: exact_match
"""
CHOICES = [
    {"question": "The capital of France is", "choices": [" Paris", " banana"], "answer": 0},
    {"question": "The sky is", "choices": [" seven", " blue"], "answer": 1},
    {"question": "One, two, three,", "choices": [" four", " window"], "answer": 0},
]


def offline(folder):
    return {**os.environ, "HOME": str(folder), "LITELLM_LOCAL_MODEL_COST_MAP": "True",
            "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_HOME": f"{folder}/hf"}


def printed_settings(s):
    """What the ready lines tell an aider user to set."""
    line = next(line for line in s.ready if line.split()[:1] == ["aider"])
    return dict(re.findall(r"(\w+)=(\S+)", line)), re.search(r"--model (\S+)", line).group(1)


def aider(s, venv, streaming):
    variables, model = printed_settings(s)
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        (folder / "a.py").write_text("def answer():\n    return 41\n")
        grammar = json.dumps("root ::= " + json.dumps(EDIT))
        settings = SETTINGS.format(grammar=grammar, streaming=json.dumps(streaming))
        (folder / "settings.yml").write_text(settings)
        out = subprocess.run(
            [f"{venv}/bin/aider", "--model", model, "--model-settings-file", "settings.yml",
             "--no-git", "--yes-always", "--no-show-model-warnings", "--no-check-update",
             "--analytics-disable", "--no-pretty", "--no-auto-lint", "--no-suggest-shell-commands",
             "--message", "Correct it.", "a.py"],
            cwd=folder, env={**offline(folder), **variables}, capture_output=True, text=True,
            timeout=300, stdin=subprocess.DEVNULL)
        assert "return 42" in (folder / "a.py").read_text(), out.stdout + out.stderr


def test_aider_edits_a_file(s, venvs):
    aider(s, venvs[0], True)


def test_aider_without_streaming(s, venvs):
    aider(s, venvs[0], False)


def lm_eval(s, venvs, model, arguments, tasks):
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        for name, text in [("choice.yaml", MC), ("generate.yaml", GENERATE)]:
            (folder / name).write_text(text.format(folder=folder))
        (folder / "choice.jsonl").write_text("".join(json.dumps(c) + "\n" for c in CHOICES))
        (folder / "generate.jsonl").write_text(json.dumps(
            {"question": "Say: The sky is", "answer": "The sky is blue"}) + "\n")
        out = subprocess.run(
            [f"{venvs[1]}/bin/lm_eval", "run", "--model", model, "--include_path", folder,
             "--model_args", f"model=smol,base_url={s.url}/v1/{arguments}", "--tasks", *tasks,
             "--output_path", folder / "out", "--log_samples"], env=offline(folder), cwd=folder,
            capture_output=True, text=True, timeout=300)
        results = list(folder.glob("out/**/results_*.json"))
        assert out.returncode == 0 and results, out.stdout + out.stderr
        return json.loads(results[0].read_text())["results"]


def test_lm_eval_completions(s, venvs):
    """Scores by the echo of prompts, and generates; it asks the server for its tokens."""
    found = lm_eval(s, venvs, "local-completions",
                    "completions,num_concurrent=3,tokenizer_backend=remote",
                    ["smoke_choice", "smoke_generate"])
    assert found["smoke_choice"]["acc,none"] == 1, found
    assert "exact_match,none" in found["smoke_generate"], found


def test_lm_eval_chat(s, venvs):
    found = lm_eval(s, venvs, "local-chat-completions", "chat/completions,num_concurrent=3",
                    ["smoke_generate", "--apply_chat_template"])
    assert "exact_match,none" in found["smoke_generate"], found


def main():
    venvs = sys.argv[1:3]
    del sys.argv[1:3]
    s = Server(small_model())
    failed = run_tests([f for name, f in globals().items() if name.startswith("test_")], s, venvs)
    code = s.stop()
    sys.exit(1 if failed or code else 0)


main()
