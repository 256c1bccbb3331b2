"""test_tiny.py - the tiny models against transformers' logits, and both directions with mlx-lm."""

import json

import mlx.core as mx
import numpy as np
from common import MODELS, Suite, convert, error, logits, mean_kl, mlx_logits, mlx_open

PROFILES = (
    "JANG_1L JANG_2S JANG_2M JANG_2L JANG_3S JANG_3M JANG_3L JANG_4S JANG_4M JANG_4L JANG_6M "
    "JANG_2K JANG_3K JANG_4K JANG_5K JANG_6K "
    "mixed_2_6 mixed_3_4 mixed_3_6 mixed_4_6 f16 bf16 f32"
).split()
MIXED = [name for name in PROFILES if name.startswith("mixed")]

# Families and spellings, each converted once and opened in mlx-lm. The prompt is shorter than any
# window, because mlx-lm leaves the windows of Mistral and Qwen2 out.
FAMILIES = {
    "llama-sharded-bf16": ["--profile", "JANG_4M"],
    "llama-linear-rope-f16": ["--profile", "JANG_6M"],
    "llama3-rope-bf16": ["--profile", "JANG_3M"],
    "llama3-newstyle-bf16": ["--profile", "JANG_4S"],
    "mistral-window-bf16": ["--profile", "JANG_4M"],
    "qwen2-tied-bf16": ["--profile", "JANG_4M"],
    "qwen2-window-bf16": ["--profile", "JANG_2S"],
    "smollm-tied-bf16": ["--profile", "JANG_4M", "--group-size", "32"],
    "mlx-llama-overrides": ["--profile", "f32"],
    "gemma-bf16": ["--profile", "JANG_6M", "--group-size", "32"],
    "gemma2-bf16": ["--profile", "JANG_2S", "--group-size", "32"],
    "gemma3text-bf16": ["--profile", "JANG_6M", "--group-size", "32"],
    "gemma3-bf16": ["--profile", "JANG_2S", "--group-size", "32"],
    "gemma3text-scaled-bf16": ["--profile", "JANG_2S", "--group-size", "32"],
    "exaone4-bf16": ["--profile", "JANG_6M", "--group-size", "32"],
    "exaone4-full-bf16": ["--profile", "JANG_2S", "--group-size", "32"],
    "gemma4-bf16": ["--profile", "JANG_2S", "--group-size", "32"],
    "gemma4text-bf16": ["--profile", "JANG_6M", "--group-size", "32"],
    "gemma4text-keys-bf16": ["--profile", "JANG_2S", "--group-size", "32"],
    "phi-bf16": ["--profile", "JANG_2S", "--group-size", "32"],
    "phi3-bf16": ["--profile", "JANG_6M", "--group-size", "32"],
    "ministral3-bf16": ["--profile", "JANG_2S", "--group-size", "32"],
    "mistral3-bf16": ["--profile", "JANG_6M", "--group-size", "32"],
    "glm4-bf16": ["--profile", "JANG_2S", "--group-size", "32"],
    "smollm3-bf16": ["--profile", "JANG_6M", "--group-size", "32"],
    "smollm3-window-bf16": ["--profile", "JANG_2S", "--group-size", "32"],
    "olmo2-bf16": ["--profile", "JANG_6M", "--group-size", "32"],
    "olmo3-bf16": ["--profile", "JANG_2S", "--group-size", "32"],
    "granite-bf16": ["--profile", "JANG_6M", "--group-size", "32"],
    "granite-bias-f16": ["--profile", "JANG_2S", "--group-size", "32"],
    "starcoder2-bf16": ["--profile", "JANG_6M", "--group-size", "32"],
    "stablelm-bf16": ["--profile", "JANG_2S", "--group-size", "32"],
    "stablelm-parallel-bf16": ["--profile", "JANG_6M", "--group-size", "32"],
    "gpt2-f32": ["--profile", "JANG_6M", "--group-size", "32"],
    "gptneox-f16": ["--profile", "JANG_2S", "--group-size", "32"],
    "apertus-bf16": ["--profile", "JANG_2S", "--group-size", "32"],
    "cohere-bf16": ["--profile", "JANG_6M", "--group-size", "32"],
    "cohere-plain-f16": ["--profile", "JANG_2S", "--group-size", "32"],
    "ernie45-bf16": ["--profile", "JANG_2S", "--group-size", "32"],
    "ernie45-bias-f16": ["--profile", "JANG_6M", "--group-size", "32"],
    "hunyuan-plain-f16": ["--profile", "JANG_6M", "--group-size", "32"],
    "llama-f16": ["--profile", "JANG_2S", "--group-size", "32"],
    "llama-yarn-bf16": ["--profile", "JANG_6M", "--group-size", "32"],
    "llama-dynamic-bf16": ["--profile", "JANG_6M", "--group-size", "32"],
    "mistral-head32-f32": ["--profile", "JANG_2S", "--group-size", "32"],
    "qwen3-bf16": ["--profile", "JANG_6M", "--group-size", "32"],
    "hunyuan-bf16": ["--profile", "JANG_2S", "--group-size", "32"],
    "seedoss-bf16": ["--profile", "JANG_6M", "--group-size", "32"],
}
SHORT = 6


def expected_of(path):
    return json.loads((path / "expected.json").read_text())["ids"], np.load(path / "expected.npy")


def against_transformers(suite, path):
    """Every fixture as it is: prefill, token by token, and with 8-bit activations."""
    ids, expected = expected_of(path)
    quantized = "quantization" in json.loads((path / "config.json").read_text())
    limit = 2e-3 if quantized else 1e-3
    exact = logits(suite, path, ids, "--exact")
    suite.below(f"{path.name} --exact", error(exact, expected), limit)
    step = logits(suite, path, ids, "--exact", "--step")
    suite.below(f"{path.name} --exact --step", error(step, expected), limit)
    plain = logits(suite, path, ids)
    if quantized:
        suite.below(f"{path.name} mean KL", mean_kl(plain, expected), 1e-3)
    else:
        suite.below(f"{path.name}", error(plain, expected), limit)


def opens_in_mlx(suite, name, source, options):
    """Converts, opens the result in mlx-lm, and compares the logits of both."""
    ids, _ = expected_of(source)
    output = convert(source, suite.directory / name, *options)
    model, tokenizer = mlx_open(output)
    theirs = mlx_logits(model, ids[:SHORT])
    ours = logits(suite, output, ids[:SHORT], "--exact")
    suite.below(f"{name} in mlx-lm", error(ours, theirs), 2e-3)
    message = [{"role": "user", "content": "a test"}]
    text = tokenizer.apply_chat_template(message, tokenize=False, add_generation_prompt=True)
    suite.check(f"{name} chat template in mlx-lm", text.endswith("assistant\n"), repr(text[-24:]))


def deep_model(directory, n_layers):
    """llama-bf16 with its two layers repeated, for the recipes choose by the layer's number."""
    source = MODELS / "llama-bf16"
    weights = mx.load(str(source / "model.safetensors"))
    deep = {}
    for name, value in weights.items():
        for layer in range(n_layers):
            if f".layers.{layer % 2}." in name:
                deep[name.replace(f".layers.{layer % 2}.", f".layers.{layer}.")] = value
        if ".layers." not in name:
            deep[name] = value
    directory.mkdir()
    mx.save_safetensors(str(directory / "model.safetensors"), deep, metadata={"format": "pt"})
    config = json.loads((source / "config.json").read_text())
    config["num_hidden_layers"] = n_layers
    (directory / "config.json").write_text(json.dumps(config))
    for name in ["tokenizer.json", "tokenizer_config.json", "generation_config.json"]:
        (directory / name).write_bytes((source / name).read_bytes())
    return directory


def widths(path):
    """{module: (bits, group size)} as config.json has them, the defaults filled in."""
    quantization = json.loads((path / "config.json").read_text())["quantization"]
    weights = {}
    for file in path.glob("*.safetensors"):
        weights.update(mx.load(str(file)))
    result = {}
    for name in weights:
        if name.endswith(".scales"):
            module = name.removesuffix(".scales")
            entry = quantization.get(module) or quantization
            group = entry.get("group_size") or quantization["group_size"]
            result[module] = (entry["bits"], group)
    return result


def same_recipe(suite, recipe, n_layers):
    from mlx_lm import convert as mlx_convert

    source = deep_model(suite.directory / f"deep-{recipe}-{n_layers}", n_layers)
    theirs = suite.directory / f"theirs-{recipe}-{n_layers}"
    mlx_convert(str(source), str(theirs), quantize=True, quant_predicate=recipe)
    ours = convert(source, suite.directory / f"ours-{recipe}-{n_layers}", "--profile", recipe)
    a, b = widths(ours), widths(theirs)
    differing = sorted(key for key in a.keys() | b.keys() if a.get(key) != b.get(key))
    detail = ", ".join(f"{key} {a.get(key)} {b.get(key)}" for key in differing[:3])
    suite.check(f"{recipe}, {n_layers} layers, as mlx-lm chooses", not differing, detail)


def main():
    suite = Suite()
    for path in sorted(MODELS.iterdir()):
        if path.is_dir():
            with suite.case(path.name):
                against_transformers(suite, path)
    for profile in PROFILES:
        with suite.case(profile):
            source = MODELS / "llama-bf16"
            opens_in_mlx(suite, f"llama-bf16-{profile}", source, ["--profile", profile])
    for bits in (2, 3, 4, 5, 6, 8):
        for group in (32, 64):
            with suite.case(f"{bits} bits, group size {group}"):
                options = ["--bits", bits, "--group-size", group]
                source = MODELS / "llama-f32"
                opens_in_mlx(suite, f"llama-f32-{bits}-g{group}", source, options)
    for name, options in FAMILIES.items():
        with suite.case(name):
            opens_in_mlx(suite, f"{name}{options[1]}", MODELS / name, options)
    for recipe in MIXED:
        for n_layers in (3, 17):
            with suite.case(f"{recipe}, {n_layers} layers"):
                same_recipe(suite, recipe, n_layers)
    suite.finish()


main()
