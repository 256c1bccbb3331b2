"""speed_models - models of real shapes with random weights, for measuring speed.

A source is a Hugging Face directory in bf16; what jang convert makes of it lies beside it, and GGUF
files for ik_llama.cpp, whose blocks are random bytes with scales of a sensible size: what a type
costs does not depend on its weights, and no program has to round them. Plain Python 3.
"""

import array
import json
import math
import os
import pathlib
import random
import shutil
import struct
import tarfile

from speed_run import run, say

ROOT = pathlib.Path(__file__).resolve().parent.parent
JANG = ROOT / "build/release/jang"
SHARED = pathlib.Path(os.environ.get("JANG_SHARED", ROOT.parent / "shared"))
TINY = ROOT / "tests/golden/models/llama-bf16"

LLAMA_1B = {
    "architectures": ["LlamaForCausalLM"],
    "attention_bias": False,
    "bos_token_id": 128000,
    "eos_token_id": [128001, 128008, 128009],
    "head_dim": 64,
    "hidden_act": "silu",
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "max_position_embeddings": 131072,
    "mlp_bias": False,
    "model_type": "llama",
    "num_attention_heads": 32,
    "num_hidden_layers": 16,
    "num_key_value_heads": 8,
    "rms_norm_eps": 1e-05,
    "rope_scaling": {
        "factor": 32.0,
        "high_freq_factor": 4.0,
        "low_freq_factor": 1.0,
        "original_max_position_embeddings": 8192,
        "rope_type": "llama3",
    },
    "rope_theta": 500000.0,
    "tie_word_embeddings": True,
    "torch_dtype": "bfloat16",
    "vocab_size": 128256,
}

# Four layers of Llama-3-8B: 0.87 of 7 billion weights, so that every machine can hold them.
LLAMA_8B_STACK = LLAMA_1B | {
    "head_dim": 128,
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 4,
}

SHAPES = {"1b": LLAMA_1B, "8b-stack": LLAMA_8B_STACK}


def tensors(config):
    """Names and shapes in the order of the file."""
    n, m = config["hidden_size"], config["intermediate_size"]
    kv = config["num_key_value_heads"] * config["head_dim"]
    yield "model.embed_tokens.weight", [config["vocab_size"], n]
    for i in range(config["num_hidden_layers"]):
        layer = f"model.layers.{i}."
        yield layer + "input_layernorm.weight", [n]
        yield layer + "mlp.down_proj.weight", [n, m]
        yield layer + "mlp.gate_proj.weight", [m, n]
        yield layer + "mlp.up_proj.weight", [m, n]
        yield layer + "post_attention_layernorm.weight", [n]
        yield layer + "self_attn.k_proj.weight", [kv, n]
        yield layer + "self_attn.o_proj.weight", [n, n]
        yield layer + "self_attn.q_proj.weight", [n, n]
        yield layer + "self_attn.v_proj.weight", [kv, n]
    yield "model.norm.weight", [n]


# ---- Sources ----------------------------------------------------------------------------------


def normal_block():
    """2^20 bf16 numbers, mean 0, deviation 0.02: the upper halves of f32."""
    rng = random.Random(1)
    floats = array.array("f", (rng.gauss(0, 0.02) for _ in range(1 << 20)))
    halves = array.array("H")
    halves.frombytes(floats.tobytes())
    return halves[1::2].tobytes()


def write_weights(path, config):
    """The weights are that block, taken from a different place for each tensor."""
    header, at = {"__metadata__": {"format": "pt"}}, 0
    for name, shape in tensors(config):
        n_bytes = 2 * math.prod(shape)
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [at, at + n_bytes]}
        at += n_bytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    block = normal_block()
    rng = random.Random(2)
    with open(path, "wb") as f:
        f.write(len(text).to_bytes(8, "little") + text)
        for _name, shape in tensors(config):
            left, start = 2 * math.prod(shape), 2 * rng.randrange(1 << 20)
            if len(shape) == 1:  # norms: ones
                f.write(b"\x80\x3f" * shape[0])
                continue
            while left:
                piece = block[start : start + left]
                f.write(piece)
                left -= len(piece)
                start = 0


def write_tokenizer(directory):
    archive = SHARED / "tokenizers/llama3.tar.xz"
    if archive.exists():
        with tarfile.open(archive) as tar:
            for member in tar.getmembers():
                name = pathlib.PurePath(member.name).name
                if member.isfile() and name in ("tokenizer.json", "tokenizer_config.json"):
                    (directory / name).write_bytes(tar.extractfile(member).read())
    else:
        say(f"no {archive}: the tiny models' tokenizer is used")
        for name in ("tokenizer.json", "tokenizer_config.json"):
            shutil.copy(TINY / name, directory)


def make_source(directory, config):
    """A model in bf16 with random weights; kept if it is there."""
    if not (directory / "config.json").exists():
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(parents=True)
        write_weights(directory / "model.safetensors", config)
        write_tokenizer(directory)
        (directory / "config.json").write_text(json.dumps(config, indent=2))
    return directory


def convert(source, output, what):
    """What is a width or a profile's name."""
    if not output.exists():
        say(f"making {output}")
        how = ["--bits", what] if what.isdigit() else ["--profile", what]
        output.parent.mkdir(parents=True, exist_ok=True)
        run([JANG, "convert", "--model", source, *how, "--output", output])
    return output


def model_of(work, shape, what):
    """A converted model of a shape, made at the first call with its source."""
    output = work / shape / what
    if output.exists():
        return output
    return convert(make_source(work / shape / "source", SHAPES[shape]), output, what)


# ---- GGUF -------------------------------------------------------------------------------------

# name: number of the type in ik_llama.cpp, weights and bytes of a block, bytes before a row's
# blocks, and the fields that are scales: offset, struct format, value. Blocks as in its
# ggml-common.h; the values give weights a deviation of about 0.02.
GGUF_TYPES = {
    "Q4_0": (2, 32, 18, 0, [(0, "e", 0.0043)]),
    "Q8_0": (8, 32, 34, 0, [(0, "e", 0.00027)]),
    "Q2_K": (10, 256, 84, 0, [(80, "e", 0.0018), (82, "e", 0.0027)]),
    "Q3_K": (11, 256, 110, 0, [(108, "e", 0.0005)]),
    "Q4_K": (12, 256, 144, 0, [(0, "e", 0.00013), (2, "e", 0.001)]),
    "Q5_K": (13, 256, 176, 0, [(0, "e", 0.000065), (2, "e", 0.001)]),
    "Q6_K": (14, 256, 210, 0, [(208, "e", 0.000015)]),
    "IQ4_XS": (23, 256, 136, 0, [(0, "e", 0.00002)]),
    "IQ4_KS": (144, 256, 136, 4, [(-4, "f", 0.000004)]),
    "IQ2_KS": (145, 256, 70, 2, [(-2, "e", 0.0001)]),
    "IQ5_KS": (152, 256, 168, 4, [(-4, "f", 0.000004)]),
    "IQ3_KS": (156, 256, 102, 2, [(-2, "e", 0.00005)]),
}
GGUF_BITS = {name: int(name.lstrip("IQ")[0]) for name in GGUF_TYPES}

GGUF_NAMES = {
    "input_layernorm": "attn_norm",
    "mlp.down_proj": "ffn_down",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.k_proj": "attn_k",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_proj": "attn_q",
    "self_attn.v_proj": "attn_v",
}


def gguf_name(name):
    """Its name there: model.layers.3.mlp.up_proj.weight is blk.3.ffn_up.weight."""
    if name == "model.embed_tokens.weight":
        return "token_embd.weight"
    if name == "model.norm.weight":
        return "output_norm.weight"
    _model, _layers, i, rest = name.split(".", 3)
    return f"blk.{i}.{GGUF_NAMES[rest.removesuffix('.weight')]}.weight"


def random_rows(kind, n_in, n_row):
    """Rows of a type: random codes, and scales that are the same everywhere."""
    _number, n_weight, n_bytes, before, scales = GGUF_TYPES[kind]
    rng = random.Random(3)
    rows = bytearray()
    for _ in range(n_row):
        row = bytearray(rng.randbytes(before + n_in // n_weight * n_bytes))
        for offset, form, value in scales:
            packed = struct.pack("<" + form, value)
            starts = [0] if offset < 0 else range(before + offset, len(row), n_bytes)
            for at in starts:
                row[at : at + len(packed)] = packed
        rows += row
    return bytes(rows)


def text(value):
    value = value.encode()
    return struct.pack("<Q", len(value)) + value


def gguf_settings(config):
    """(key, type, packed value) of GGUF's metadata; 4: u32, 6: f32, 8: string."""
    u32 = {
        "context_length": config["max_position_embeddings"],
        "embedding_length": config["hidden_size"],
        "block_count": config["num_hidden_layers"],
        "feed_forward_length": config["intermediate_size"],
        "attention.head_count": config["num_attention_heads"],
        "attention.head_count_kv": config["num_key_value_heads"],
        "rope.dimension_count": config["head_dim"],
        "vocab_size": config["vocab_size"],
    }
    yield "general.architecture", 8, text("llama")
    for key, value in u32.items():
        yield "llama." + key, 4, struct.pack("<I", value)
    yield "llama.attention.layer_norm_rms_epsilon", 6, struct.pack("<f", config["rms_norm_eps"])
    yield "llama.rope.freq_base", 6, struct.pack("<f", config["rope_theta"])
    yield "general.file_type", 4, struct.pack("<I", 2)
    yield "tokenizer.ggml.model", 8, text("no_vocab")


def row_bytes(kind, n_in):
    _number, n_weight, n_bytes, before, _scales = GGUF_TYPES[kind]
    return before + n_in // n_weight * n_bytes


def gguf_header(config, kind, align):
    """The file up to its data, and the sizes of what follows."""
    infos, sizes, at = b"", [], 0
    for name, shape in tensors(config):
        plain = len(shape) == 1
        n_bytes = 4 * shape[0] if plain else shape[0] * row_bytes(kind, shape[1])
        infos += text(gguf_name(name)) + struct.pack("<I", len(shape))
        infos += b"".join(struct.pack("<Q", n) for n in reversed(shape))
        infos += struct.pack("<IQ", 0 if plain else GGUF_TYPES[kind][0], at)
        sizes.append((shape, n_bytes))
        at += n_bytes + -n_bytes % align
    settings = [text(key) + struct.pack("<I", t) + v for key, t, v in gguf_settings(config)]
    head = b"GGUF" + struct.pack("<IQQ", 3, len(sizes), len(settings)) + b"".join(settings) + infos
    return head + bytes(-len(head) % align), sizes


def make_gguf(path, config, kind):
    """A file of one type throughout, the output tied to the embedding as in the source."""
    if path.exists():
        return path
    say(f"making {path}")
    path.parent.mkdir(parents=True, exist_ok=True)
    part, align, rows = path.with_suffix(".part"), 32, {}
    head, sizes = gguf_header(config, kind, align)
    with open(part, "wb") as f:
        f.write(head)
        for shape, n_bytes in sizes:
            if len(shape) == 1:
                f.write(struct.pack("<f", 1.0) * shape[0])
            else:
                n_in = shape[1]
                rows.setdefault(n_in, random_rows(kind, n_in, 64))
                for _ in range(shape[0] // 64):
                    f.write(rows[n_in])
            f.write(bytes(-n_bytes % align))
        f.flush()
        os.fsync(f.fileno())
        os.posix_fadvise(f.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    part.rename(path)
    return path
