"""Random small templates and contexts for fuzz_compare.py.

Maker(rng) first makes a context, then a template that uses its names. Expressions are mostly of the
kind that their place wants, so that about half of the templates render.
"""

import sys

WORDS = [
    "",
    "a",
    "ab",
    "Hello World",
    "hello-world (foo) [bar]",
    " x  y ",
    "\t\n",
    "ünï €",
    "ß",
    "ΑΣ",
    "日本",
    "🎉é",
    "a,b,,c",
    "it's",
    'say "hi"',
    "<b>&</b>",
    "line1\nline2\r\nline3",
    "42",
    "-7",
    " 3.5 ",
    "1e3",
    "0x1F",
    "1_000",
    "nan",
    "%s",
    "%d-%s",
    "{}",
    "{0}:{x}",
    "True",
    "role",
    "\\",
    "abcabc",
    "ABC",
    "see http://x.org/a?b=(c), www.y.com. or (me@z.net)",
    "a--b well-known long-ish-words --",
    "123abc",
    "٣",
    "\x00\x1f\x7f",
    "a.b",
    "name",
    "Ǆ",
    "ŉ",
    "\u2028z",
    "\u00a0q",
]
# fmt: off
NUMBERS = [
    0, 1, 2, 3, -1, -2, 5, 7, 10, 42, 100, -100, 255, 1000, 2**31, 2**53 + 1, 2**63 - 1,
    -(2**63), 0.0, 1.0, 0.5, -0.5, 1.5, 2.5, -2.5, 0.1, 3.14159, 1e16, 1e-5, 123456.789, 1e22,
    1e100, -0.0, 2.675, 1e300, 5e-324, 99.99, 1e15, 123456789012345680.0,
]
# fmt: on

KEYS = ["a", "b", "role", "name", "items", "keys", "get", "x y", "0", "ünï", "content", "count"]


class Maker:
    def __init__(self, rng):
        self.rng = rng
        self.names = []

    # ---- Contexts ----

    def value(self, depth):
        r = self.rng
        kind = r.randrange(10)
        if depth <= 0 or kind < 5:
            return r.choice(
                [None, True, False, r.choice(NUMBERS), r.choice(WORDS), r.choice(WORDS)]
            )
        if kind < 8:
            same = r.random() < 0.6
            first = self.value(depth - 1)
            items = []
            for _ in range(r.randrange(5)):
                items.append(self.alike(first) if same else self.value(depth - 1))
            return items
        return {r.choice(KEYS): self.value(depth - 1) for _ in range(r.randrange(4))}

    def alike(self, value):
        r = self.rng
        if isinstance(value, bool) or value is None:
            return r.choice([True, False])
        if isinstance(value, (int, float)):
            return r.choice(NUMBERS)
        if isinstance(value, str):
            return r.choice(WORDS)
        if isinstance(value, dict):
            return {k: self.alike(v) for k, v in value.items()}
        return [self.alike(v) for v in value]

    def context(self):
        r = self.rng
        context = {
            "s": r.choice(WORDS),
            "n": r.choice([0, 1, 2, 3, -1, 7, 10, 2.5, r.choice(NUMBERS)]),
            "l": [self.value(1) for _ in range(r.randrange(5))],
            "nums": [r.choice(NUMBERS[:16]) for _ in range(r.randrange(6))],
            "words": [r.choice(WORDS) for _ in range(r.randrange(5))],
            "d": {r.choice(KEYS): self.value(1) for _ in range(r.randrange(4))},
            "rows": [
                {"a": r.choice([1, 2, 3]), "b": r.choice(WORDS), "d": {"x": r.choice(NUMBERS)}}
                for _ in range(r.randrange(4))
            ],
            "v": self.value(3),
        }
        self.names = list(context) + ["missing"]
        return context

    # ---- Expressions ----

    def name(self):
        return self.rng.choice(self.names)

    def literal_string(self):
        text = self.rng.choice(WORDS)
        if self.rng.random() < 0.15:
            return self.rng.choice(
                ['"\\n\\t"', "'\\u00e9\\x41\\101'", '"\\q\\\\"', "'a' 'b'", "'\\é'"]
            )
        quote = self.rng.choice("'\"")
        out = []
        for c in text:
            if c in (quote, "\\"):
                out.append("\\" + c)
            elif c == "\n":
                out.append("\\n")
            elif c == "\x00":
                out.append("\\x00")
            else:
                out.append(c)
        return quote + "".join(out) + quote

    def number(self):
        r = self.rng
        return r.choice(
            [
                "0",
                "1",
                "2",
                "3",
                "5",
                "10",
                "42",
                "1.5",
                "0.5",
                "2.0",
                "1e3",
                "1_000",
                "0x1f",
                "0b11",
                "0o17",
                "1e-7",
                "100000",
                "9223372036854775807",
                "12345678901234567890",
                "00",
                "1.0e+2",
            ]
        )

    def atom(self):
        r = self.rng
        k = r.randrange(12)
        if k < 5:
            return self.name()
        if k < 7:
            return self.literal_string()
        if k < 9:
            return self.number()
        return r.choice(
            ["none", "true", "false", "None", "True", "[]", "{}", "()", "loop", "ns", "ns.x"]
        )

    def text(self, depth):
        """An expression that is probably a string."""
        r = self.rng
        k = r.randrange(9)
        if depth <= 0 or k < 2:
            return r.choice(["s", self.literal_string(), "words[0]", "s"])
        if k == 2:
            return "%s ~ %s" % (self.expr(depth - 1), self.expr(depth - 1))
        if k == 3:
            return "(%s)%s" % (self.text(depth - 1), self.text_method(depth - 1))
        if k == 4:
            return "%s[%s]" % (r.choice(["s", "'héllo wörld'"]), self.slice(depth - 1))
        if k == 5:
            return "(%s|%s)" % (self.text(depth - 1), self.text_filter(depth - 1))
        if k == 6:
            return "%s %% %s" % (self.percent_format(), self.format_values(depth - 1))
        if k == 7:
            return "%s.format(%s)" % (self.brace_format(), self.arguments(depth - 1))
        return "(%s + %s)" % (self.text(depth - 1), self.text(depth - 1))

    def percent_format(self):
        r = self.rng
        parts = []
        for _ in range(r.randrange(1, 3)):
            parts.append(
                "%"
                + r.choice(["", "-", "+", " ", "0", "#", "-0", "+0"])
                + r.choice(["", "", "5", "12"])
                + r.choice(["", "", ".0", ".2", ".10", "."])
                + r.choice("sdrxXofeEgGicsdfa%")
            )
        if r.random() < 0.1:
            parts.append("%(a)s")
        return "'" + r.choice(["", "<"]) + "|".join(parts) + "'"

    def format_values(self, depth):
        r = self.rng
        if r.random() < 0.5:
            return r.choice(["n", "s", "nums", "d", self.number(), "(n,)", "(s,)", "v"])
        return "(%s, %s)" % (self.expr(depth - 1), self.expr(depth - 1))

    def brace_format(self):
        r = self.rng
        parts = []
        for _ in range(r.randrange(1, 3)):
            name = r.choice(["", "", "", "0", "1", "x", "0.a", "0[a]", "0[0]", "x[b]", "0.upper"])
            conversion = r.choice(["", "", "", "!r", "!s", "!a"])
            spec = (
                "".join(
                    [
                        r.choice(["", "", "", "*<", ">", "^", "=", "é^"]),
                        r.choice(["", "", "+", " ", "-"]),
                        r.choice(["", "", "", "#", "z"]),
                        r.choice(["", "", "0"]),
                        r.choice(["", "", "5", "12"]),
                        r.choice(["", "", "", ",", "_"]),
                        r.choice(["", "", ".0", ".2", ".7"]),
                        r.choice(
                            [
                                "",
                                "",
                                "s",
                                "d",
                                "f",
                                "e",
                                "g",
                                "x",
                                "X",
                                "b",
                                "o",
                                "%",
                                "E",
                                "G",
                                "n",
                                "c",
                            ]
                        ),
                    ]
                )
                if r.random() < 0.7
                else ""
            )
            parts.append("{%s%s%s}" % (name, conversion, ":" + spec if spec else ""))
        return "'" + r.choice(["", "{{", "a}}", "<"]) + " ".join(parts) + "'"

    def arguments(self, depth):
        r = self.rng
        args = [self.expr(depth - 1) for _ in range(r.randrange(3))]
        if r.random() < 0.5:
            args.append("x=" + self.expr(depth - 1))
        return ", ".join(args)

    def slice(self, depth):
        r = self.rng
        part = lambda: r.choice(["", "", "0", "1", "2", "-1", "-2", "n", "10", "-10", "none"])
        k = r.randrange(4)
        if k == 0:
            return r.choice(["0", "-1", "1", "n", "5", "'a'", "s", "true"])
        if k == 1:
            return "%s:%s" % (part(), part())
        return "%s:%s:%s" % (part(), part(), r.choice(["", "1", "2", "-1", "-2", "n"]))

    def text_method(self, depth):
        r = self.rng
        t = self.literal_string
        return r.choice(
            [
                lambda: ".upper()",
                lambda: ".lower()",
                lambda: ".title()",
                lambda: ".capitalize()",
                lambda: ".swapcase()",
                lambda: ".casefold()",
                lambda: ".strip()",
                lambda: ".%s(%s)" % (r.choice(["strip", "lstrip", "rstrip"]), t()),
                lambda: ".replace(%s, %s)" % (t(), t()),
                lambda: ".replace(%s, %s, %s)" % (t(), t(), r.choice(["0", "1", "2", "-1"])),
                lambda: ".split(%s)"
                % r.choice(["", "none", t(), t(), "none, 1", "',', 1", "sep=' '", "maxsplit=1"]),
                lambda: ".rsplit(%s)"
                % r.choice(["", t(), "none, 1", "',', 1", "none, maxsplit=2"]),
                lambda: ".splitlines(%s)" % r.choice(["", "true", "keepends=true"]),
                lambda: ".%s(%s)"
                % (
                    r.choice(["startswith", "endswith"]),
                    r.choice([t(), "('a', 'h')", t() + ", 1", t() + ", 0, -1"]),
                ),
                lambda: ".%s(%s)"
                % (
                    r.choice(["find", "rfind", "index", "rindex", "count"]),
                    r.choice([t(), t() + ", 1", t() + ", -3, -1", t() + ", 1, none"]),
                ),
                lambda: ".%s(%s)"
                % (
                    r.choice(["center", "ljust", "rjust"]),
                    r.choice(["5", "12", "20, '*'", "11, 'é'", "n"]),
                ),
                lambda: ".zfill(%s)" % r.choice(["5", "12", "0", "n"]),
                lambda: ".%s(%s)" % (r.choice(["partition", "rpartition"]), t()),
                lambda: ".%s(%s)" % (r.choice(["removeprefix", "removesuffix"]), t()),
                lambda: ".expandtabs(%s)" % r.choice(["", "4", "0"]),
                lambda: ".join(%s)" % r.choice(["words", "l", "s", "['x', 'y']", "nums"]),
                lambda: "."
                + r.choice(
                    [
                        "isalpha",
                        "isdigit",
                        "isdecimal",
                        "isnumeric",
                        "isalnum",
                        "isspace",
                        "islower",
                        "isupper",
                        "istitle",
                        "isascii",
                        "isprintable",
                        "isidentifier",
                    ]
                )
                + "()",
                lambda: "." + r.choice(["upper", "foo", "__class__", "format", "_x"]),
            ]
        )()

    def text_filter(self, depth):
        r = self.rng
        t = self.literal_string
        return r.choice(
            [
                lambda: r.choice(
                    [
                        "upper",
                        "lower",
                        "title",
                        "capitalize",
                        "trim",
                        "string",
                        "length",
                        "wordcount",
                        "e",
                        "escape",
                        "safe",
                        "forceescape",
                        "list",
                        "reverse",
                        "first",
                        "last",
                        "count",
                        "striptags",
                        "tojson",
                        "int",
                        "float",
                        "urlencode",
                    ]
                ),
                lambda: "trim(%s)" % t(),
                lambda: "replace(%s, %s)" % (t(), t()),
                lambda: "replace(%s, %s, %s)" % (t(), t(), r.choice(["1", "0", "none"])),
                lambda: "truncate(%s)"
                % r.choice(
                    ["5", "9", "9, true", "5, false, ''", "7, true, '..', 0", "length=6, leeway=0"]
                ),
                lambda: "indent(%s)"
                % r.choice(["", "2", "2, true", "'> '", "1, true, true", "width=3, first=true"]),
                lambda: "center(%s)" % r.choice(["", "10", "15"]),
                lambda: "default(%s)" % r.choice([t(), t() + ", true", "boolean=true"]),
                lambda: "int(%s)" % r.choice(["", "7", "0, 16", "default=3", "base=2", "1, 0"]),
                lambda: "float(%s)" % r.choice(["", "1.5", "default=none"]),
                lambda: "format(%s)" % self.arguments(depth),
                lambda: "wordwrap(%s)"
                % r.choice(["5", "8, false", "6, true, '|'", "79", "10, break_on_hyphens=false"]),
                lambda: "urlize(%s)"
                % r.choice(["", "10", "nofollow=true", "target='_blank', rel='b a'"]),
                lambda: "tojson(%s)"
                % r.choice(
                    [
                        "indent=2",
                        "ensure_ascii=true",
                        "sort_keys=true",
                        "separators=(',', ':')",
                        "indent='\t'",
                        "indent=0",
                        "true",
                    ]
                ),
            ]
        )()

    def seq(self, depth):
        """An expression that is probably a sequence."""
        r = self.rng
        k = r.randrange(9)
        if depth <= 0 or k < 3:
            return r.choice(
                [
                    "l",
                    "nums",
                    "words",
                    "rows",
                    "d",
                    "d.items()",
                    "d.keys()",
                    "d.values()",
                    "range(3)",
                    "range(1, 10, 3)",
                    "range(5, 0, -2)",
                    "s",
                    "v",
                    "missing",
                ]
            )
        if k == 3:
            return "[%s]" % ", ".join(self.expr(depth - 1) for _ in range(r.randrange(4)))
        if k == 4:
            return "(%s)" % ", ".join(self.expr(depth - 1) for _ in range(r.randrange(2, 4)))
        if k == 5:
            return "(%s + %s)" % (self.seq(depth - 1), self.seq(depth - 1))
        if k == 6:
            return "%s[%s]" % (
                r.choice(["l", "nums", "words", "range(10)", "(1,2,3)"]),
                self.slice(depth - 1),
            )
        return "(%s|%s)" % (self.seq(depth - 1), self.seq_filter(depth - 1))

    def seq_filter(self, depth):
        r = self.rng
        attr = lambda: r.choice(["'a'", "'b'", "'d.x'", "0", "'0'", "'nope'", "'a,b'", "1"])
        test = lambda: r.choice(
            [
                "'odd'",
                "'even'",
                "'string'",
                "'none'",
                "'defined'",
                "'number'",
                "'eq', 1",
                "'in', [1, 2]",
                "'gt', 2",
                "'sameas', none",
                "'upper'",
                "'mapping'",
                "'bogus'",
                "'divisibleby', 2",
                "'=='  , s",
            ]
        )
        return r.choice(
            [
                lambda: r.choice(
                    [
                        "list",
                        "first",
                        "last",
                        "length",
                        "sort",
                        "unique",
                        "unique|list",
                        "reverse",
                        "reverse|list",
                        "min",
                        "max",
                        "sum",
                        "join",
                        "items|list",
                        "list|tojson",
                        "string",
                        "tojson",
                        "dictsort",
                        "map|list",
                        "select|list",
                        "reject|list",
                        "list|length",
                        "first|default('q')",
                    ]
                ),
                lambda: "join(%s)" % r.choice(["','", "', ', attribute='b'", "1", "s", "d='-'"]),
                lambda: "sort(%s)"
                % r.choice(
                    [
                        "true",
                        "reverse=true",
                        "case_sensitive=true",
                        "attribute=" + attr(),
                        "false, true",
                        "attribute='a,b', reverse=true",
                    ]
                ),
                lambda: "unique(%s)|list"
                % r.choice(["true", "attribute=" + attr(), "case_sensitive=true"]),
                lambda: "map(%s)|list"
                % r.choice(
                    [
                        "'upper'",
                        "'string'",
                        "'length'",
                        "'tojson'",
                        "attribute=" + attr(),
                        "attribute='nope', default='z'",
                        "'default', 'q'",
                        "'int'",
                        "'round', 1",
                        "'replace', 'a', 'b'",
                        "'bogus'",
                        "'abs'",
                    ]
                ),
                lambda: "%s(%s)|list" % (r.choice(["select", "reject"]), test()),
                lambda: "%s(%s)|list"
                % (
                    r.choice(["selectattr", "rejectattr"]),
                    r.choice([attr(), attr() + ", " + test()]),
                ),
                lambda: "groupby(%s)"
                % r.choice([attr(), attr() + ", default='z'", "'b', case_sensitive=true"]),
                lambda: "batch(%s)|list" % r.choice(["2", "3, 'x'", "1", "0", "2, none"]),
                lambda: "slice(%s)|list" % r.choice(["2", "3, 'x'", "1", "0", "4"]),
                lambda: "sum(%s)"
                % r.choice(["start=10", "attribute='a'", "'d.x'", "start='x'", "start=[]"]),
                lambda: "%s(%s)"
                % (
                    r.choice(["min", "max"]),
                    r.choice(["attribute='a'", "case_sensitive=true", "attribute='b'"]),
                ),
                lambda: "dictsort(%s)"
                % r.choice(
                    ["true", "by='value'", "reverse=true", "false, 'value', true", "by='x'"]
                ),
                lambda: "attr(%s)" % r.choice(["'a'", "'items'", "'keys'"]),
                lambda: "default([], true)",
                lambda: "d(1)",
                lambda: "xmlattr",
                lambda: "pprint",
                lambda: "upper",
            ]
        )()

    def num(self, depth):
        r = self.rng
        k = r.randrange(8)
        if depth <= 0 or k < 2:
            return r.choice(["n", self.number(), "nums[0]", "-1", "(-n)", "s|length"])
        if k < 5:
            op = r.choice(["+", "-", "*", "/", "//", "%", "+", "-"])
            return "(%s %s %s)" % (self.num(depth - 1), op, self.num(depth - 1))
        if k == 5:
            return "%s ** %s" % (
                r.choice(["2", "n", "-3", "0.5", "10", "(-2)"]),
                r.choice(["0", "2", "3", "-1", "10", "0.5", "64", "-2", "2 ** 2"]),
            )
        if k == 6:
            return "(%s|%s)" % (
                self.num(depth - 1),
                r.choice(
                    [
                        "abs",
                        "round",
                        "round(1)",
                        "round(2, 'floor')",
                        "round(1, 'ceil')",
                        "round(-1)",
                        "int",
                        "float",
                        "string",
                        "filesizeformat",
                        "filesizeformat(true)",
                        "round(method='ceil')",
                        "round(precision=3)",
                    ]
                ),
            )
        return r.choice(["-", "+", "- -"]) + self.num(depth - 1)

    def cond(self, depth):
        r = self.rng
        k = r.randrange(7)
        if depth <= 0 or k == 0:
            return self.atom()
        if k == 1:
            op = lambda: r.choice(["==", "!=", "<", "<=", ">", ">=", "==", "in", "not in"])
            kind = r.choice([self.num, self.text, self.expr, self.seq])
            text = "%s %s %s" % (kind(depth - 1), op(), kind(depth - 1))
            return text + (" %s %s" % (op(), kind(depth - 1)) if r.random() < 0.2 else "")
        if k == 2:
            return "%s in %s" % (self.expr(depth - 1), self.seq(depth - 1))
        if k == 3:
            return "%s is %s%s" % (
                self.expr(depth - 1),
                r.choice(["", "not "]),
                r.choice(
                    [
                        "defined",
                        "undefined",
                        "none",
                        "string",
                        "number",
                        "integer",
                        "float",
                        "boolean",
                        "true",
                        "false",
                        "mapping",
                        "sequence",
                        "iterable",
                        "callable",
                        "odd",
                        "even",
                        "divisibleby 3",
                        "divisibleby(2)",
                        "sameas none",
                        "in [1, 'a']",
                        "eq 1",
                        "== 2",
                        "ne 1",
                        "lt 5",
                        "gt(2)",
                        "ge 1",
                        "lower",
                        "upper",
                        "escaped",
                        "filter",
                        "test",
                        "equalto(1)",
                        "lessthan 3",
                        "le 2",
                    ]
                ),
            )
        if k == 4:
            return "not %s" % self.cond(depth - 1)
        return "(%s %s %s)" % (self.cond(depth - 1), r.choice(["and", "or"]), self.cond(depth - 1))

    def expr(self, depth):
        r = self.rng
        k = r.randrange(14)
        if depth <= 0 or k < 2:
            return self.atom()
        if k < 4:
            return self.num(depth - 1)
        if k < 6:
            return self.text(depth - 1)
        if k < 8:
            return self.seq(depth - 1)
        if k == 8:
            return self.cond(depth - 1)
        if k == 9:
            return "(%s if %s%s)" % (
                self.expr(depth - 1),
                self.cond(depth - 1),
                r.choice(["", " else " + self.expr(depth - 1)]),
            )
        if k == 10:
            return "{%s}" % ", ".join(
                "%s: %s"
                % (
                    r.choice(["'a'", "1", "'b'", "s", "n", "true", "none", "1.0", "(1, 2)"]),
                    self.expr(depth - 1),
                )
                for _ in range(r.randrange(3))
            )
        if k == 11:
            return "%s%s" % (
                self.name(),
                r.choice(
                    [
                        ".a",
                        ".b",
                        "['a']",
                        "[0]",
                        "[-1]",
                        ".x.y",
                        "[s]",
                        ".items()",
                        ".get('a')",
                        ".get('q', 1)",
                        ".0",
                        ".role",
                        ".get",
                        "[1:]",
                        ".keys()|list",
                        ".count('a')",
                        ".index(1)",
                        ".copy()",
                        ".append(1)",
                        ".pop",
                        ".real",
                        # an integer has it since Python 3.12
                        ".is_integer()" if sys.version_info >= (3, 12) else ".imag",
                        ".bit_length()",
                    ]
                ),
            )
        if k == 12:
            return r.choice(
                [
                    "range(%s)" % self.num(0),
                    "dict(a=1, b=s)",
                    "dict([('x', 1)])",
                    "namespace(x=1).x",
                    "m(%s)" % self.arguments(depth - 1),
                    "joiner('|')()",
                    "cycler(1, 2).next()",
                    "dict(d, z=1)",
                    "namespace(d)",
                    "m",
                    "f2(n)",
                ]
            )
        return "(%s|%s)" % (
            self.expr(depth - 1),
            r.choice([self.text_filter, self.seq_filter])(depth - 1),
        )

    # ---- Statements ----

    def begin(self):
        return self.rng.choice(["{%", "{%", "{%", "{%-", "{%+"]) + self.rng.choice([" ", " ", ""])

    def end(self):
        return self.rng.choice([" ", " ", ""]) + self.rng.choice(["%}", "%}", "%}", "-%}", "+%}"])

    def tag(self, text):
        return self.begin() + text + self.end()

    def data(self):
        return self.rng.choice(
            [
                "",
                " ",
                "\n",
                "  \n  ",
                "x",
                "text ",
                "\n\n",
                "\n   ",
                " a\n",
                "{",
                "}}",
                "#",
                "\t",
                "é",
                "\r\n",
                "%}",
            ]
        )

    def output(self, depth):
        r = self.rng
        return (
            r.choice(["{{", "{{", "{{", "{{-"])
            + " "
            + self.expr(depth)
            + " "
            + r.choice(["}}", "}}", "}}", "-}}"])
        )

    def body(self, depth):
        return "".join(self.statement(depth) for _ in range(self.rng.randrange(1, 4)))

    def statement(self, depth):
        r = self.rng
        k = r.randrange(24)
        t = self.tag
        if depth <= 0 or k < 8:
            return self.data() + self.output(r.randrange(1, 4)) + self.data()
        if k < 10:
            middle = ""
            if r.random() < 0.3:
                middle += t("elif " + self.cond(2)) + self.body(depth - 1)
            if r.random() < 0.5:
                middle += t("else") + self.body(depth - 1)
            return t("if " + self.cond(2)) + self.body(depth - 1) + middle + t("endif")
        if k < 13:
            return self.loop(depth)
        if k < 15:
            name = r.choice(["x", "y", "s", "n", "l", "a, b", "ns.x", "z"])
            if name != "ns.x":
                self.names += [x for x in name.split(", ") if x not in self.names]
            return t("set %s = %s" % (name, self.expr(2)))
        if k == 15:
            return (
                t(
                    "set %s%s"
                    % (r.choice(["x", "y"]), r.choice(["", " | upper", " | trim | length"]))
                )
                + self.body(depth - 1)
                + t("endset")
            )
        if k == 16:
            return t(
                "set ns = namespace(%s)" % r.choice(["", "x=1", "x=[], y=s", "d"])
            ) + self.body(depth - 1)
        if k == 17:
            signature = r.choice(
                ["()", "(a)", "(a, b=2)", "(a='x', b=a)", "(x, y=none, z=n)", "(caller=none)"]
            )
            inner = self.body(depth - 1) + r.choice(
                [
                    "",
                    "{{ varargs }}",
                    "{{ kwargs }}",
                    "{{ a }}",
                    "{{ caller() }}",
                    "{{ caller(1) }}",
                ]
            )
            name = r.choice(["m", "f2"])
            return (
                t("macro %s%s" % (name, signature))
                + inner
                + t("endmacro")
                + r.choice(
                    [
                        "",
                        "{{ m(1) }}",
                        "{{ m() }}",
                        "{{ f2(1, b=3) }}",
                        "{{ m.name }}{{ m.arguments }}",
                        "{{ m(1, 2, 3, q=4) }}",
                    ]
                )
            )
        if k == 18:
            return (
                t(
                    "call%s %s"
                    % (r.choice(["", "(q)", "(q=1)"]), r.choice(["m()", "m(1)", "f2(2, b=s)"]))
                )
                + self.body(depth - 1)
                + t("endcall")
            )
        if k == 19:
            return (
                t(
                    "filter "
                    + r.choice(
                        ["upper", "trim", "replace('a', 'b')", "indent(2)|upper", "length", "bogus"]
                    )
                )
                + self.body(depth - 1)
                + t("endfilter")
            )
        if k == 20:
            return (
                t("with x = %s, y = %s" % (self.expr(1), self.expr(1)))
                + self.body(depth - 1)
                + t("endwith")
            )
        if k == 21:
            return (
                "{#%s c %s#}" % (r.choice(["", "-", "+"]), r.choice(["", "-", "+"])) + self.data()
            )
        if k == 22:
            return (
                r.choice(["{% raw %}", "{%- raw -%}", "{%+ raw %}"])
                + self.data()
                + "{{ x }}"
                + self.data()
                + r.choice(["{% endraw %}", "{%- endraw -%}", "{%+ endraw +%}"])
            )
        return r.choice(
            [
                lambda: t("generation") + self.body(depth - 1) + t("endgeneration"),
                lambda: t("block b%d%s" % (r.randrange(1000), r.choice(["", " scoped"])))
                + self.body(depth - 1)
                + t("endblock"),
                lambda: t("print %s, %s" % (self.expr(1), self.expr(1))),
                lambda: t("autoescape false") + self.body(depth - 1) + t("endautoescape"),
            ]
        )()

    def loop(self, depth):
        r = self.rng
        t = self.tag
        target, source = r.choice(
            [
                ("i", "range(%d)" % r.randrange(4)),
                ("i", self.seq(2)),
                ("i", "l"),
                ("i", "words"),
                ("i", "rows"),
                ("k, w", "d.items()"),
                ("k, w", "d|items"),
                ("k", "d"),
                ("k, w", "rows|groupby('a')"),
                ("i", "[1, [2, [3]], 4]"),
                ("a, (b, c)", "[(1, (2, 3)), [4, [5, 6]]]"),
                ("i", self.expr(2)),
            ]
        )
        self.names += [
            x.strip("() ") for x in target.split(",") if x.strip("() ") not in self.names
        ]
        test = r.choice(["", "", "", " if " + self.cond(1), " if loop.index > 1"])
        recursive = r.random() < 0.08
        body = self.body(depth - 1)
        if r.random() < 0.6:
            body += "{{ %s }}" % r.choice(
                [
                    "loop.index",
                    "loop.index0",
                    "loop.first",
                    "loop.last",
                    "loop.length",
                    "loop.revindex",
                    "loop.revindex0",
                    "loop.previtem",
                    "loop.nextitem",
                    "loop.depth",
                    "loop.cycle('a', 'b')",
                    "loop.changed(i)",
                    "loop",
                    "loop.nope",
                    "loop.previtem is defined",
                ]
            )
        if r.random() < 0.25:
            body += (
                t("if %s" % r.choice(["loop.index == 2", "i", "loop.first", self.cond(1)]))
                + t(r.choice(["break", "continue"]))
                + t("endif")
                + self.data()
            )
        if recursive:
            body += r.choice(
                [
                    "{% if i is iterable and i is not string %}{{ loop(i) }}{% endif %}",
                    "{{ loop([]) }}",
                    "{{ loop.depth0 }}",
                ]
            )
        other = t("else") + self.body(depth - 1) if r.random() < 0.2 else ""
        return (
            t("for %s in %s%s%s" % (target, source, test, " recursive" if recursive else ""))
            + body
            + other
            + t("endfor")
        )

    def template(self):
        r = self.rng
        if r.random() < 0.45:
            return self.output(4)
        prefix = r.choice(
            [
                "",
                "",
                "{% macro m(a=1) %}[{{ a }}{{ caller() if caller }}]{% endmacro %}",
                "{% set ns = namespace(x=0) %}",
            ]
        )
        text = prefix + "".join(self.statement(3) for _ in range(r.randrange(1, 5)))
        if r.random() < 0.02 and text:  # damaged
            i = r.randrange(len(text))
            text = text[:i] + text[i + r.randrange(1, 4) :]
        return text
