"""test_dequantized.py - converted models against transformers: `--exact` logits of JANG_6M and
JANG_2S equal those of transformers on the dequantized weights.

    python tests/interop/test_dequantized.py [NAME...]     (all tiny models, or those named)

The weights are taken back to the hub's names and layouts by `jang export --format hf --type f32`,
whose numbers tests/unit/test_export.c compares with code * scale + bias. Needs torch; skips without
it.
"""

import json
import shutil
import sys

from common import MODELS, Suite, convert, error, jang, logits

try:
    import torch
    from transformers import AutoModelForCausalLM
except ImportError:
    torch = None

PROFILES = ["JANG_6M", "JANG_2S"]
MOST = 2e-3
AS_TYPE = {"kimi_k2": "deepseek_v3"}  # which transformers has no name for


def theirs(path, ids):
    model, info = AutoModelForCausalLM.from_pretrained(
        path, dtype=torch.float32, attn_implementation="eager", output_loading_info=True
    )
    assert not info["missing_keys"] and not info["mismatched_keys"], info
    with torch.no_grad():
        return model.eval()(torch.tensor([ids])).logits[0].numpy()


def check(suite, name, profile):
    ids = json.loads((MODELS / name / "expected.json").read_text())["ids"]
    made, plain = suite.directory / "made", suite.directory / "plain"
    for old in (made, plain):
        shutil.rmtree(old, ignore_errors=True)
    convert(MODELS / name, made, "--profile", profile, "--group-size", "32", "--method", "rtn")
    jang("export", made, "--format", "hf", "--type", "f32", "--output", plain)
    config = json.loads((plain / "config.json").read_text())
    config["model_type"] = AS_TYPE.get(config["model_type"], config["model_type"])
    (plain / "config.json").write_text(json.dumps(config))
    value = error(logits(suite, made, ids, "--exact"), theirs(plain, ids))
    suite.below(f"{name} {profile}", value, MOST)


def main():
    suite = Suite()
    if torch is None:
        suite.skip("dequantized weights", "torch is not installed")
        suite.finish()
    torch.set_num_threads(1)
    names = [p.name for p in sorted(MODELS.iterdir()) if (p / "expected.json").exists()]
    names = [name for name in names if not name.startswith("mlx")]
    for name in sys.argv[1:] or names:
        for profile in PROFILES:
            with suite.case(f"{name} {profile}"):
                check(suite, name, profile)
    suite.finish()


main()
