#!/usr/bin/env python3
"""compare_schema.py - schemas against the Python package jsonschema, in both directions.

    compare_schema.py GRAMMAR_BATCH [--count N] [--seed N]

For hand-made and random schemas:
- what a random walk through our automaton writes must parse and validate;
- documents made for the schema by a generator of its own must be matched if they validate and are
  written as docs/grammar.md says (order of members, no others, numbers without exponents), and
  mutated ones that do not validate must not be matched.
Exit status 77: the package is not there.
"""

import argparse
import json
import random
import subprocess
import sys

try:
    import jsonschema
except ImportError:
    print("jsonschema is not installed: skipped")
    sys.exit(77)

TREE = {"type": "object",
        "properties": {"value": {"type": "integer"},
                       "children": {"type": "array", "items": {"$ref": "#"}, "maxItems": 3}},
        "required": ["value"]}

HAND_MADE = [
    {}, True, {"type": "string"}, {"type": ["string", "null"], "maxLength": 3}, TREE,
    {"type": "integer", "minimum": -17, "maximum": 1203}, {"type": "integer", "minimum": 100},
    {"type": "integer", "exclusiveMaximum": -5}, {"type": "integer", "exclusiveMinimum": -1.5,
                                                  "maximum": 7.9},
    {"type": "number", "minimum": 0.25, "exclusiveMaximum": 13.5},
    {"type": "number", "minimum": -3.75, "maximum": -0.5}, {"type": "number", "exclusiveMinimum": 0},
    {"type": "number", "minimum": -1, "maximum": 1}, {"type": "number", "maximum": 1e3},
    {"type": "integer", "multipleOf": 7}, {"type": "integer", "multipleOf": 12, "minimum": 50,
                                           "maximum": 500},
    {"type": "number", "multipleOf": 0.25, "minimum": -2, "maximum": 30},
    {"type": "string", "minLength": 2, "maxLength": 4}, {"type": "string", "pattern": "^a[0-9]+b$"},
    {"type": "string", "pattern": "x.y"}, {"type": "string", "pattern": "^(a|bc)*$", "maxLength": 7},
    {"type": "string", "pattern": "^(ab)+$", "minLength": 3, "maxLength": 9},
    {"type": "string", "pattern": "^[a-z]*$", "minLength": 500, "maxLength": 5000},
    {"allOf": [{"pattern": "a"}, {"pattern": "b"}], "type": "string"},
    {"type": "string", "pattern": "^\"\\\\\n?$"},
    {"enum": ["a", "b\"c", 1, 2.5, None, True, [1, {"x": "y"}], {"k": [], "l": {}}, "\u00e9"]},
    {"type": "integer", "enum": [1, "x", 5, 2.5], "minimum": 2}, {"const": {"a": [1, 2, "three"]}},
    {"type": "array", "prefixItems": [{"type": "integer"}, {"const": "x"}], "items": False},
    {"type": "array", "prefixItems": [{"type": "integer"}], "items": {"type": "boolean"},
     "minItems": 2, "maxItems": 4},
    {"type": "array", "items": {"type": "null"}, "minItems": 3, "maxItems": 12},
    {"type": "array", "maxItems": 0}, {"type": "object", "maxProperties": 0},
    {"type": "object", "additionalProperties": {"type": "integer"}, "minProperties": 1},
    {"type": "object", "properties": {"a": {}, "ab": {"type": "null"}},
     "additionalProperties": {"type": "integer"}, "required": ["ab"]},
    {"type": "object", "properties": {"a": {"const": 1}, "b": {"const": 2}, "c": {"const": 3},
                                      "d": {"const": 4}},
     "required": ["b", "d"], "minProperties": 3, "additionalProperties": False},
    {"type": "object", "properties": {"a": {"const": 1}, "b": {"const": 2}, "c": {"const": 3}},
     "required": ["c"], "maxProperties": 2, "additionalProperties": False},
    {"type": "object", "patternProperties": {"^n": {"type": "integer"}, "s$": {"minimum": 5}},
     "additionalProperties": False},
    {"type": "object", "properties": {"name": {"type": "string"}},
     "patternProperties": {"^n": {"maxLength": 2}}},
    {"anyOf": [{"type": "integer"}, {"type": "array", "items": {"$ref": "#"}}]},
    {"type": "object", "properties": {"kind": {"enum": ["a", "b"]}},
     "anyOf": [{"required": ["kind"], "properties": {"x": {"type": "integer"}}},
               {"properties": {"y": {"type": "string", "maxLength": 2}}, "required": ["y"]}],
     },
    {"allOf": [{"properties": {"a": {"type": "integer"}}, "required": ["a"]},
               {"properties": {"a": {"minimum": 10}, "b": {"type": "boolean"}}}], "type": "object"},
    {"$defs": {"pair": {"type": "array", "items": {"$ref": "#/$defs/leaf"}, "minItems": 2,
                        "maxItems": 2},
               "leaf": {"oneOf": [{"type": "boolean"}, {"$ref": "#/$defs/pair"}]}},
     "$ref": "#/$defs/pair"},
    {"type": "string", "format": "date"}, {"type": "string", "format": "time"},
    {"type": "string", "format": "date-time"}, {"type": "string", "format": "uuid"},
    {"type": "string", "format": "email"}, {"type": "string", "format": "ipv4"},
    {"type": "string", "format": "ipv6"},
    {"type": "object", "properties": {"s": {"type": "string", "format": "date", "maxLength": 10}}},
]

REFUSED = [
    ({"type": "object", "properties": {"a": {"type": "string", "pattern": "(?=x)"}}},
     "schema.properties.a.pattern: look-around"),
    ({"type": "object", "properties": {"a": {"not": {}}}}, "schema.properties.a.not: "),
    ({"type": "integer", "minimum": 3, "maximum": 2}, "schema: no number lies between"),
    ({"type": "object", "properties": {"a": {"enum": [1], "type": "string"}}, "required": ["a"]},
     "schema.properties.a: none of its values"),
    ({"allOf": [{"type": "string"}, {"type": "integer"}]}, "schema.allOf[1].type: no type"),
    ({"type": "object", "properties": {"a": {"$ref": "#"}}, "required": ["a"]},
     "schema: no finite text"),
    ({"$ref": "#"}, "leads back to itself"), ({"$ref": "#/$defs/x"}, "schema.$ref: nothing is at"),
    ({"type": "integer", "minimum": 1.2, "maximum": 1.8}, "schema: no finite text"),
    ({"type": "string", "maxLength": -1}, "schema.maxLength: expected a whole number"),
    ({"type": "text"}, "schema.type: expected"), ({"anyOf": []}, "schema.anyOf: expected"),
    (False, "schema: false allows no value"), ({"type": "array", "uniqueItems": True},
                                               "schema.uniqueItems: this keyword"),
    ({"type": "object", "required": ["a"], "additionalProperties": False}, "schema.properties.a"),
    ({"type": "string", "pattern": "^a{5}$", "maxLength": 3}, "no string of the right length"),
]


class Maker:
    """Documents that mostly satisfy a schema, made without looking at any automaton."""

    def __init__(self, rng, root):
        self.rng, self.root = rng, root

    def any(self, depth):
        kinds = ["null", "boolean", "integer", "number", "string"]
        kinds += ["array", "object"] if depth < 3 else []
        return self.typed(self.rng.choice(kinds), {}, depth)

    def text(self, schema):
        low = schema.get("minLength", 0)
        n = self.rng.randint(low, min(schema.get("maxLength", low + 6), low + 6))
        return "".join(self.rng.choice('abz09 "\\/\n\u00e9\u4e2d\U0001f600') for _ in range(n))

    def typed(self, kind, schema, depth):
        rng = self.rng
        if kind == "null":
            return None
        if kind == "boolean":
            return rng.random() < 0.5
        if kind in ("integer", "number"):
            low = schema.get("minimum", schema.get("exclusiveMinimum", -200))
            high = schema.get("maximum", schema.get("exclusiveMaximum", low + 400))
            unit = schema.get("multipleOf")
            if unit and kind == "integer":
                return int(rng.randint(int(low), int(max(low, high))) // unit * unit)
            if kind == "integer" or rng.random() < 0.3:
                return rng.randint(int(low) - 1, int(max(low, high)) + 1)
            return round(rng.uniform(low - 0.5, high + 0.5), rng.randint(1, 4))
        if kind == "string":
            return self.text(schema)
        if kind == "array":
            first = schema.get("prefixItems", [])
            rest = schema.get("items", True)
            low = schema.get("minItems", 0)
            n = rng.randint(low, min(schema.get("maxItems", low + 3), low + 3))
            return [self.make(first[i] if i < len(first) else rest, depth + 1) for i in range(n)]
        out = {}
        properties = schema.get("properties", {})
        for name, inner in properties.items():
            if name in schema.get("required", []) or rng.random() < 0.6:
                out[name] = self.make(inner, depth + 1)
        extra = schema.get("additionalProperties", not properties)
        if extra is not False:
            for name in rng.sample(["k", "l", "n1", "as", "ab"], rng.randint(0, 2)):
                if name not in out and name not in properties:
                    out[name] = self.make(extra, depth + 1)
        return out

    def make(self, schema, depth=0):
        rng = self.rng
        if depth > 12 or isinstance(schema, bool):
            return self.any(depth)
        if "$ref" in schema:
            target = self.root
            for step in schema["$ref"].split("/")[1:]:
                target = target[step]
            return self.make(target, depth + 1)
        if "enum" in schema:
            return rng.choice(schema["enum"])
        if "const" in schema:
            return schema["const"]
        for key in ("anyOf", "oneOf"):
            if key in schema:
                return self.make({**{k: v for k, v in schema.items() if k != key},
                                  **rng.choice(schema[key])}, depth + 1)
        if "allOf" in schema:
            merged = {k: v for k, v in schema.items() if k != "allOf"}
            for part in schema["allOf"]:
                merged.update(part)
            return self.make(merged, depth + 1)
        kinds = schema.get("type")
        if kinds is None:
            return self.any(depth)
        return self.typed(rng.choice(kinds) if isinstance(kinds, list) else kinds, schema, depth)


def mutate(rng, value):
    """One small change somewhere."""
    if isinstance(value, dict) and value and rng.random() < 0.8:
        key = rng.choice(list(value))
        out = dict(value)
        if rng.random() < 0.2:
            del out[key]
        else:
            out[key] = mutate(rng, value[key])
        return out
    if isinstance(value, list) and value and rng.random() < 0.8:
        out = list(value)
        i = rng.randrange(len(out))
        if rng.random() < 0.3:
            out.insert(i, out[i])
        else:
            out[i] = mutate(rng, out[i])
        return out
    if isinstance(value, str) and rng.random() < 0.7:
        return value[:-1] if value and rng.random() < 0.5 else value + rng.choice("ab0")
    if isinstance(value, (int, float)) and not isinstance(value, bool) and rng.random() < 0.8:
        return value + rng.choice([-1, 1, 10, -0.5, 0.125])
    return rng.choice([None, True, 3, -2.5, "x", [], {}])


def random_schema(rng, depth=0):
    kind = rng.choice(["string", "integer", "number", "boolean", "null", "enum"]
                      + (["object", "array", "anyOf", "object", "array"] if depth < 3 else []))
    if kind == "enum":
        return {"enum": rng.sample(["a", "ab", "b", 1, 12, None, "c d", True], 3)}
    if kind == "anyOf":
        return {"anyOf": [random_schema(rng, depth + 1) for _ in range(rng.randint(1, 3))]}
    schema = {"type": kind}
    if kind == "string" and rng.random() < 0.6:
        low = rng.randint(0, 4)
        schema.update({"minLength": low, "maxLength": low + rng.randint(0, 5)})
        if rng.random() < 0.3:
            schema["pattern"] = rng.choice(["^[a-c]*$", "a", "b+", "^(ab)*", "[0-9]$", "^..?.?$"])
    if kind in ("integer", "number") and rng.random() < 0.7:
        low = rng.randint(-300, 300) / rng.choice([1, 1, 4])
        keys = rng.choice([("minimum", "maximum"), ("exclusiveMinimum", "exclusiveMaximum")])
        schema[keys[0]] = low
        if rng.random() < 0.7:
            schema[keys[1]] = low + rng.randint(2, 2000)
        if rng.random() < 0.3:
            schema["multipleOf"] = rng.choice([2, 3, 5])
    if kind == "array":
        schema["items"] = random_schema(rng, depth + 1)
        if rng.random() < 0.6:
            low = rng.randint(0, 2)
            schema.update({"minItems": low, "maxItems": low + rng.randint(0, 3)})
        if rng.random() < 0.3:
            schema["prefixItems"] = [random_schema(rng, depth + 1) for _ in range(2)]
    if kind == "object":
        names = rng.sample(["a", "b", "ab", "name", "x y", "\u00e9", "q\"uote"], rng.randint(0, 4))
        schema["properties"] = {name: random_schema(rng, depth + 1) for name in names}
        schema["required"] = [name for name in names if rng.random() < 0.5]
        if rng.random() < 0.5:
            schema["additionalProperties"] = rng.choice([False, True, {"type": "integer"}])
    return schema


def closed(schema):
    """The schema as we read it: an object with properties has no others unless it says so."""
    if isinstance(schema, list):
        return [closed(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    out = {key: value if key in ("enum", "const") else closed(value)
           for key, value in schema.items()}
    if str(schema.get("pattern", "")).endswith("$"):  # Python's $ also stands before a last \n
        out["pattern"] = schema["pattern"][:-1] + "\\Z"
    tables = schema.get("properties") or schema.get("patternProperties")
    if tables and isinstance(tables, dict) and "additionalProperties" not in schema \
            and "anyOf" not in schema:
        out["additionalProperties"] = False
    return out


def in_order(schema, value, root):
    """Whether members come as properties does; only simple schemas are looked into."""
    if isinstance(schema, dict) and "$ref" in schema:
        target = root
        for step in schema["$ref"].split("/")[1:]:
            target = target[step]
        return in_order(target, value, root)
    if not isinstance(schema, dict) or any(k in schema for k in ("anyOf", "oneOf", "allOf",
                                                                 "enum", "const")):
        return None
    if isinstance(value, dict):
        names = list(schema.get("properties", {}))
        names += [name for name in schema.get("required", []) if name not in names]
        known = [name for name in value if name in names]
        if known != [name for name in names if name in value] or list(value)[:len(known)] != known:
            return False
        for name, inner in value.items():
            good = in_order(schema.get("properties", {}).get(
                name, schema.get("additionalProperties", True)), inner, root)
            if not good:
                return good
    if isinstance(value, list):
        first = schema.get("prefixItems", [])
        for i, inner in enumerate(value):
            good = in_order(first[i] if i < len(first) else schema.get("items", True), inner, root)
            if not good:
                return good
    return True


def spellable(value):
    """Numbers that Python writes as we do within bounds; what is an integer to a schema but written
    1.0 is left out."""
    if isinstance(value, dict):
        return all(spellable(one) for one in value.values())
    if isinstance(value, list):
        return all(spellable(one) for one in value)
    return not isinstance(value, float) or (value != int(value) and "e" not in repr(value))


def validates(schema, value):
    return jsonschema.Draft202012Validator(
        schema, format_checker=jsonschema.Draft202012Validator.FORMAT_CHECKER).is_valid(value)


class Batch:
    def __init__(self, program):
        self.process = subprocess.Popen([program], stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def ask(self, **request):
        self.process.stdin.write(json.dumps(request, ensure_ascii=False).encode() + b"\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            sys.exit(f"the program ended ({self.process.wait()}) at {json.dumps(request)}")
        return json.loads(line)


def dumps(rng, value):
    indent = rng.choice([None, None, 1, 2, "\t"])
    compact = rng.random() < 0.3 and indent is None
    text = json.dumps(value, ensure_ascii=False, indent=indent,
                      separators=(",", ":") if compact else None)
    return text


def check(batch, rng, schema, walks, n_docs, counts):
    """Returns a list of differences."""
    maker = Maker(rng, schema)
    docs = []
    for _ in range(n_docs):
        value = maker.make(schema)
        docs.append(value)
        docs.append(mutate(rng, value))
    texts = [dumps(rng, value) for value in docs]
    answer = batch.ask(kind="schema", text=json.dumps(schema, ensure_ascii=False), match=texts,
                       walks=walks, seed=rng.randrange(1 << 40))
    if "error" in answer:
        good = [value for value in docs if validates(closed(schema), value) and spellable(value)]
        counts["refused"] += 1
        return [f"refused ({answer['error']}) but {good[0]!r} validates"] if good else []
    bad = []
    for text in answer["made"]:
        if text is None:  # a walk that did not find its end
            continue
        counts["made"] += 1
        if not isinstance(text, str):
            bad.append(f"stuck: {text}")
            continue
        try:
            value = json.loads(text)
        except ValueError as error:
            bad.append(f"made {text!r}: {error}")
            continue
        if not validates(schema, value):
            bad.append(f"made {text!r}, which does not validate")
    for value, text, matched in zip(docs, texts, answer["matched"]):
        valid = validates(closed(schema), value)
        counts["matched" if matched else "not matched"] += 1
        if matched and not validates(schema, value):
            bad.append(f"matched {text!r}, which does not validate")
        if not matched and valid and spellable(value) and in_order(schema, value, schema):
            bad.append(f"did not match {text!r}")
    return bad


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("program")
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    batch, rng = Batch(args.program), random.Random(args.seed)
    counts = dict.fromkeys(["made", "matched", "not matched", "refused"], 0)
    n_bad = 0
    schemas = HAND_MADE + [random_schema(rng) for _ in range(args.count)]
    for schema in schemas:
        for line in check(batch, rng, schema, 6, 12, counts)[:3]:
            n_bad += 1
            print(f"{json.dumps(schema)}: {line}")
    for schema, message in REFUSED:
        answer = batch.ask(kind="schema", text=json.dumps(schema), match=[], walks=0, seed=1)
        if message not in answer.get("error", ""):
            n_bad += 1
            print(f"{json.dumps(schema)}: expected \"{message}\", got {answer}")
    print(f"{len(schemas)} schemas: {counts}, {n_bad} differences")
    return 1 if n_bad else 0


sys.exit(main())
