#!/usr/bin/env python3
"""Compares a tokenizer with the Python package `tokenizers` on many texts.

    compare_tokenizer.py BENCH_TOKENIZER TOKENIZER.json [--random N] [--seed S] [--file TEXT]...

BENCH_TOKENIZER is the built program, run in its pipe mode. Ids (with and without special tokens),
decodings (whole, streamed, without special tokens) must all be equal. Prints what differs and ends
with 1 if anything did.
"""

import argparse
import random
import struct
import subprocess
import sys

import tokenizers

ADD_SPECIAL, NO_SPECIAL, SKIP_SPECIAL = 1, 2, 1

SCRIPTS = {
    "latin": "The quick brown fox can't jump; it'll've slept. Don't! WE'RE 12,345.67 naïve café",
    "german": "Größe, Übermut und Straßenbahnhaltestelle – „Zitat“ 1.234,56 €",
    "russian": "Съешь же ещё этих мягких французских булок, да выпей чаю. 2024 год",
    "greek": "Ξεσκεπάζω την ψυχοφθόρα βδελυγμία· τί ἐστιν ἀλήθεια;",
    "arabic": "نص حكيم له سر قاطع وذو شأن عظيم مكتوب على ثوب أخضر ١٢٣٤",
    "hebrew": "דג סקרן שט בים מאוכזב ולפתע מצא חברה שְׁלוֹם",
    "hindi": "ऋषियों को सताने वाले दुष्ट राक्षसों के राजा रावण का सर्वनाश १२३",
    "bengali": "আমি বাংলায় গান গাই ২০২৪ সালে",
    "tamil": "யாமறிந்த மொழிகளிலே தமிழ்மொழி போல் இனிதாவது",
    "telugu": "తెలుగు భాష చాలా అందమైనది",
    "thai": "เป็นมนุษย์สุดประเสริฐเลิศคุณค่า กว่าบรรดาฝูงสัตว์เดรัจฉาน ๑๒๓",
    "lao": "ສະບາຍດີ ຊາວໂລກ",
    "khmer": "ភាសាខ្មែរ គឺជាភាសាកំណើត",
    "burmese": "မြန်မာဘာသာစကား သည်",
    "georgian": "საქართველო მშვენიერი ქვეყანაა",
    "armenian": "Բել դղյակի ձախ ժամն օֆ ազգությանը",
    "amharic": "ሰላም ለዓለም ኢትዮጵያ ፩፪፫",
    "chinese": "天地玄黄，宇宙洪荒。日月盈昃，辰宿列张。我有123个苹果！",
    "japanese": "いろはにほへと ちりぬるを。カタカナとひらがな、漢字ｱｲｳ １２３",
    "korean": "키스의 고유조건은 입술끼리 만나야 하고 특별한 기술은 필요치 않다 각",
    "tibetan": "བོད་སྐད་ཡིག་ ༡༢༣",
    "mongolian": "ᠮᠣᠩᠭᠣᠯ ᠪᠢᠴᠢᠭ \u180e x",
    "code": "def f(x):\n\tif x>=0x1F: return {'a':[1,2,3]}  # done\r\n"
    "    for(int i=0;i<10;++i){}\n\n\n",
    "json": '{"a": [1, 2.5e-3, null, true], "b": {"c": "d\\n\\u00e9"}}',
    "emoji": "👨‍👩‍👧‍👦 🏳️‍🌈 👍🏽 🇩🇪🇫🇷 ❤️‍🔥 1️⃣ ☺️ 🤷🏿‍♀️",
    "combining": "e\u0301 a\u0328\u0301 Z\u0351\u036b\u0343 n\u0303 "
    "\u0345\u0301 \u1100\u1161\u11a8 \u212b \ufb01",
    "controls": "\x00\x01\x07\x08\x0b\x0c\x1b\x7f\x80\x85\x9f"
    "\u200b\u200c\u200d\u200e\u2028\u2029\ufeff\u00ad",
    "spaces": "  a   b\u00a0c\u3000d\u2003 \t \n \r\n\n  \t\te \u1680 f    ",
    "controls2": "'S 'T 'RE 'LL 'ſ it'ſ 'Ve ' s K'D \u212a ' '' 'll'",
    "specials": "a<s>b</s> <unk> <|begin_of_text|> x <|im_start|>user\n"
    "<bos><eos> <pad><|endoftext|>",
    "meta": "▁ ▁▁ a▁b <0x41> <0xE2><0x96> Ġ Ċ",
}

POOLS = [
    "abcdefghijklmnopqrstuvwxyz", "ABCDEFGHIJKLMNOPQRSTUVWXYZ", "0123456789", "     ", "\n\r\t ",
    "'\"`-_.,;:!?()[]{}<>/\\|@#$%^&*+=~", "".join(SCRIPTS.values()),
    "éèüñçßøåæœ", "\u0300\u0301\u0308\u0327\u0345\u200d\ufe0f", "😀👍🏽🇩🇪👨‍👩",
]


class Ours:
    def __init__(self, program, path):
        self.process = subprocess.Popen([program, path, "pipe"], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE)

    def call(self, operation, flags, count, body, size):
        p = self.process
        p.stdin.write(struct.pack("<3I", operation, flags, count) + body)
        p.stdin.flush()
        n, = struct.unpack("<I", p.stdout.read(4))
        return p.stdout.read(n * size)

    def encode(self, data, flags):
        raw = self.call(0, flags, len(data), data, 4)
        return list(struct.unpack(f"<{len(raw) // 4}i", raw))

    def decode(self, ids, flags, operation=1):
        return self.call(operation, flags, len(ids), struct.pack(f"<{len(ids)}i", *ids), 1)


def random_text(rng, added):
    text = []
    for _ in range(rng.randrange(1, 12)):
        kind = rng.random()
        if kind < 0.7:
            pool = rng.choice(POOLS)
            text.append("".join(rng.choice(pool) for _ in range(rng.randrange(1, 9))))
        elif kind < 0.8 and added:
            text.append(rng.choice(added))
        elif kind < 0.9:
            text.append("".join(
                chr(rng.choice([rng.randrange(0xD800), rng.randrange(0xE000, 0x20000)]))
                for _ in range(rng.randrange(1, 5))))
        else:
            text.append(rng.choice([" ", "  ", "\n", "\n\n", "\t"]) * rng.randrange(1, 5))
    return "".join(text)


def texts(arguments, added):
    yield ""
    yield from SCRIPTS.values()
    yield " ".join(SCRIPTS.values())
    yield "\n".join(SCRIPTS.values()) * 3
    for name in arguments.file:
        whole = open(name, "rb").read().decode("utf-8", "replace")
        yield whole
        yield from whole.splitlines(keepends=True)
    if arguments.long:
        yield " " * 1000000
        yield "a" * 1000000
        yield "\n" * 300000
        yield "".join(map(chr, [c for c in range(0x30000) if not 0xD800 <= c < 0xE000]))
        yield " ".join(map(chr, [c for c in range(0x30000) if not 0xD800 <= c < 0xE000]))
    rng = random.Random(arguments.seed)
    for _ in range(arguments.random):
        yield random_text(rng, added)
    for _ in range(arguments.random // 20):
        yield rng.randbytes(rng.randrange(1, 40))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("program")
    parser.add_argument("tokenizer")
    parser.add_argument("--random", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--file", action="append", default=[])
    parser.add_argument("--long", action="store_true")
    parser.add_argument("--show", type=int, default=8)
    arguments = parser.parse_args()
    theirs = tokenizers.Tokenizer.from_file(arguments.tokenizer)
    ours = Ours(arguments.program, arguments.tokenizer)
    added = [t.content for t in theirs.get_added_tokens_decoder().values()]
    size = 1 + max(theirs.get_vocab(with_added_tokens=True).values())
    rng = random.Random(arguments.seed + 1)
    checks, wrong = 0, []

    def compare(what, text, got, expected):
        nonlocal checks
        checks += 1
        if got != expected:
            wrong.append(what)
            if len(wrong) <= arguments.show:
                at = next((i for i, (a, b) in enumerate(zip(got, expected)) if a != b),
                          min(len(got), len(expected)))
                print(f"{what}: {text[:60]!r}\n  ours     {got[max(0, at - 5):at + 12]}\n"
                      f"  expected {expected[max(0, at - 5):at + 12]}")

    def compare_decoding(ids):
        for skip in (False, True):
            expected = theirs.decode(ids, skip_special_tokens=skip).encode()
            compare("decode", ids, ours.decode(ids, skip), expected)
            compare("stream", ids, ours.decode(ids, skip, 2), expected)

    for text in texts(arguments, added):
        data = text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass")
        string = data.decode("utf-8", "replace")
        expected = theirs.encode(string, add_special_tokens=False).ids
        compare("encode", data, ours.encode(data, 0), expected)
        compare("encode+special", data, ours.encode(data, ADD_SPECIAL), theirs.encode(string).ids)
        theirs.encode_special_tokens = True
        compare("encode plain", data, ours.encode(data, NO_SPECIAL),
                theirs.encode(string, add_special_tokens=False).ids)
        theirs.encode_special_tokens = False
        compare_decoding(expected)
        if len(expected) < 1000:
            compare_decoding([rng.randrange(size) for _ in range(rng.randrange(1, 20))])
    print(f"{arguments.tokenizer}: {checks} checks, {len(wrong)} differ")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
