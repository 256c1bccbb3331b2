"""test_config_keys.py - no key of a config.json is passed over in silence.

    python tests/interop/test_config_keys.py [NAME...]     (all of FIXTURES, or those named)

In a tiny model of each family every key that transformers' configuration class has, and that the
family's code in transformers speaks of, is set to other values, and left out, one at a time. Where
that changes transformers' logits, jang either gives the same ones or refuses. A value that
transformers refuses itself, or that asks for tensors which are not there, says nothing. Needs
torch; skips without it.
"""

import copy
import importlib
import inspect
import json
import pathlib
import re
import subprocess
import sys

import numpy as np
from common import JANG, MODELS, Suite, error

FIXTURES = [
    # dense
    "llama-bf16", "llama-dynamic-bf16", "llama-linear-rope-f16", "llama-yarn-bf16",
    "llama3-rope-bf16", "mistral-window-bf16", "ministral3-bf16", "qwen2-window-bf16",
    "qwen3-tied-bias-f16", "gemma-bf16", "gemma2-bf16", "gemma3text-bf16", "gemma4text-bf16",
    "gemma4text-experts-bf16", "phi-bf16", "phi3-longrope-bf16", "phi4mini-bf16", "stablelm-bf16",
    "starcoder2-bf16", "gptneox-f16", "gpt2-f32", "olmo2-bf16", "olmo3-bf16", "granite-bf16",
    "glm-bf16", "glm4-bf16", "smollm3-window-bf16", "cohere2-bf16", "exaone4-bf16",
    "seedoss-bf16", "hunyuan-bf16", "apertus-bf16", "cohere-bf16",
    "ernie45-bf16",
    # experts
    "mixtral-bf16", "qwen2moe-bf16", "qwen3moe-mixed-f16", "olmoe-clip-bf16", "phimoe-bf16",
    "phimoe-longrope-bf16", "ernie45moe-alone-bf16",
    "granitemoe-bf16", "gptoss-bf16", "glm4moe-bf16", "glm4moelite-bf16", "minimaxm2-bf16",
    "llama4text-bf16", "ernie45moe-bf16", "deepseek2-groups-bf16", "deepseek3-bf16",
    # recurrent, hybrid
    "mamba-f32", "falcon_mamba-bf16", "mamba2-bf16", "qwen3_next-bf16", "qwen3_5-bf16",
    "qwen3_5_moe-bf16", "jamba-bf16", "jamba-dense-f16", "falcon_h1-bf16", "nemotron_h-moe-bf16",
    "granitemoehybrid-bf16", "lfm2-bf16", "lfm2_moe-bf16", "kimi_linear-bf16", "bamba-bf16",
]  # fmt: skip

# What says how to run, train or write, and not what is computed.
NOT_OF_A_FORWARD = {
    "_attn_implementation", "architectures", "chunk_size_feed_forward", "dtype", "eos_token_id",
    "bos_token_id", "id2label", "initializer_range", "is_encoder_decoder", "keys_to_ignore",
    "label2id", "model_type", "name_or_path", "output_attentions", "output_hidden_states",
    "problem_type", "return_dict", "torch_dtype", "transformers_version", "use_cache",
    "mamba_chunk_size", "chunk_size", "n_chunk", "use_kernel_forward_from_hub",
    "vision_config", "text_config", "experts_implementation", "_experts_implementation",
    "rescale_prenorm_residual",  # of fresh weights
}  # fmt: skip

# Where we know better, by fixture and key; docs/families.md says why.
KNOWN = {("olmo3-bf16", "rope_theta"), ("gptoss-bf16", "num_experts_per_tok")}
ABSENT = object()

# Values for keys that are null or strings.
OTHERS = {
    "activation_function": ["relu", "gelu"],
    "attention_chunk_size": [5],
    "clip_qkv": [0.1],
    "final_logit_softcapping": [1.5],
    "attn_logit_softcapping": [0.7],
    "hidden_act": ["relu", "gelu_pytorch_tanh"],
    "hidden_activation": ["relu", "gelu"],
    "mamba_hidden_act": ["relu"],
    "mlp_hidden_act": ["silu"],
    "position_embedding_type": ["nope", "rope"],
    "q_lora_rank": [32],
    "query_pre_attn_scalar": [7],
    "rope_scaling": [
        {"rope_type": "linear", "factor": 3.0},
        {"rope_type": "dynamic", "factor": 3.0},
        {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 8},
    ],
    "scoring_func": ["sigmoid", "softmax"],
    "sliding_window": [5],
    "topk_method": ["greedy", "noaux_tc", "group_limited_greedy"],
}
KINDS = {"sliding_attention": "full_attention", "full_attention": "sliding_attention"}


def other_values(key, value):
    """A few values that are not this one."""
    if key in OTHERS:
        return [v for v in OTHERS[key] if v != value]
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, int):
        return [v for v in (value * 2, value + 1, value - 1, value // 2) if v >= 0][:3]
    if isinstance(value, float):
        return [value * 1.5 + 0.125]
    if isinstance(value, list) and value and value[0] in KINDS:
        return [[KINDS[value[0]], *value[1:]], [KINDS.get(kind, kind) for kind in value]]
    if isinstance(value, list) and value and all(type(v) in (int, float) for v in value):
        return [[v * 1.5 if isinstance(v, float) else v + 1 for v in value], value[:-1]]
    if isinstance(value, list) and value and all(isinstance(v, bool) for v in value):
        return [[not value[0], *value[1:]]]
    if isinstance(value, dict):
        return [{**value, k: v} for k in value for v in other_values(k, value[k])[:1]]
    return []


def texts_of(config):
    """The source of the family's code in transformers."""
    package = importlib.import_module(type(config).__module__.rsplit(".", 1)[0])
    directory = pathlib.Path(inspect.getfile(package)).parent
    files = [f for f in directory.glob("*.py") if f.name.startswith(("modeling", "configuration"))]
    return "".join(f.read_text() for f in files)


def variants(raw, config, text):
    """(key, value, config) of all changes; `raw` is the part of the config that is the text's."""
    known = {**config.to_dict(), **raw}
    for key in sorted(known):
        if key in NOT_OF_A_FORWARD or not re.search(rf"\b{re.escape(key)}\b", text):
            continue
        value = raw.get(key, known[key])
        for other in other_values(key, value):
            yield key, other
    for key in sorted(set(raw) - NOT_OF_A_FORWARD):
        yield key, ABSENT


class Reference:
    """transformers' logits for a model directory with another config."""

    def __init__(self, name):
        import torch
        from safetensors.torch import load_file
        from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText

        self.torch, self.configs = torch, AutoConfig
        self.path = MODELS / name
        self.raw = json.loads((self.path / "config.json").read_text())
        whole = "vision_config" in self.raw
        self.auto = AutoModelForImageTextToText if whole else AutoModelForCausalLM
        self.stored = load_file(self.path / "model.safetensors")
        self.ids = json.loads((self.path / "expected.json").read_text())["ids"]

    def logits(self, directory, ids):
        """None where transformers refuses, or misses tensors."""
        try:
            model, info = self.auto.from_pretrained(
                directory, dtype=self.torch.float32, attn_implementation="eager",
                output_loading_info=True,
            )  # fmt: skip
            if info["missing_keys"] or info["mismatched_keys"]:
                return None
            with self.torch.no_grad():
                values = model.eval()(self.torch.tensor([ids])).logits[0].numpy()
            return values if np.isfinite(values).all() else None
        except Exception:  # whatever it says: the value is not one of this family
            return None


def ours(directory, ids, scratch):
    """Logits, or the message of a refusal."""
    output = scratch / "logits.npy"
    command = [JANG, "logits", "--model", directory, "--exact", "--output", output, "--ids"]
    run = subprocess.run([*command, ",".join(map(str, ids))], capture_output=True, text=True)
    if run.returncode == 0:
        return np.load(output), ""
    if run.returncode != 1:
        raise RuntimeError(f"jang ended with {run.returncode}: {run.stderr}")
    return None, run.stderr.strip().splitlines()[-1]


def check(suite, name):
    reference = Reference(name)
    directory = suite.directory / name
    directory.mkdir()
    for file in reference.path.iterdir():
        if file.name != "config.json" and file.is_file():
            (directory / file.name).symlink_to(file)
    config = reference.configs.from_pretrained(reference.path)
    text_config = config.get_text_config()
    usual = reference.logits(reference.path, reference.ids)
    assert usual is not None, "transformers cannot open the fixture"
    n = {"tried": 0, "refused": 0, "equal": 0}
    wrong = []
    part = reference.raw.get("text_config", reference.raw)
    for key, value in variants(part, text_config, texts_of(text_config)):
        changed = copy.deepcopy(reference.raw)
        target = changed.get("text_config", changed)
        target[key] = value
        if value is ABSENT:
            del target[key]
        (directory / "config.json").write_text(json.dumps(changed))
        wanted = reference.logits(directory, reference.ids)
        if wanted is None or (wanted.shape == usual.shape and error(wanted, usual) < 1e-6):
            continue
        n["tried"] += 1
        got, why = ours(directory, reference.ids, suite.directory)
        if got is None:
            n["refused"] += 1
        elif got.shape == wanted.shape and error(got, wanted) < 2e-3:
            n["equal"] += 1
        elif (name, key) not in KNOWN:
            same = got.shape == usual.shape and error(got, usual) < 2e-3
            told = "nothing" if value is ABSENT else json.dumps(value)
            wrong.append(f"{key} = {told} {'passed over' if same else 'differs'}")
    detail = f"{n['tried']} changes count, {n['equal']} equal, {n['refused']} refused"
    suite.check(name, not wrong, "; ".join([detail, *wrong]))


def main():
    suite = Suite()
    try:
        import torch

        torch.set_num_threads(1)
    except ImportError:
        suite.skip("keys of configs", "torch is not installed")
        suite.finish()
    for name in sys.argv[1:] or FIXTURES:
        with suite.case(name):
            check(suite, name)
    suite.finish()


main()
