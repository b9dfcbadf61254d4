"""Valid requests, and what a fuzzer makes of them: bodies whose framing still holds, and requests that are no HTTP.

Everything comes from the `Random` that is given, so a case is repeated by its seed and its number.
"""

from __future__ import annotations

import copy
import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random

SAID = [{"role": "user", "content": "say something"}]
TOOL = {
    "type": "function",
    "function": {"name": "look", "parameters": {"type": "object", "properties": {"at": {"type": "string"}}}},
}
PARTS = [{"role": "user", "content": [{"type": "text", "text": "hi"}, {"type": "image_url", "image_url": "data:,"}]}]

VALID: list[tuple[str, dict[str, Any]]] = [
    ("chat/completions", {"model": "sim", "messages": SAID, "max_tokens": 4}),
    ("chat/completions", {"model": "sim", "messages": SAID, "max_tokens": 4, "stream": True}),
    ("chat/completions", {"model": "sim", "messages": PARTS, "max_completion_tokens": 4, "n": 2, "tools": [TOOL]}),
    ("completions", {"model": "default", "prompt": "once", "max_tokens": 4, "stream": True, "stream_options": None}),
    ("embeddings", {"model": "sim", "input": ["a text", "another"]}),
    ("messages", {"model": "sim", "messages": SAID, "max_tokens": 4, "system": "be brief"}),
    ("messages", {"model": "sim", "messages": SAID, "max_tokens": 4, "stream": True}),
    ("messages/count_tokens", {"model": "sim", "messages": SAID}),
    ("responses", {"model": "sim", "input": "say something", "max_output_tokens": 16}),
    ("responses", {"model": "sim", "input": SAID, "max_output_tokens": 16, "stream": True, "store": False}),
]
ODD_VALUES: list[Any] = [
    *(None, True, False, 0, -1, 1, 1.5, -0.0, 1e300, 2**31, 2**53 + 1, 2**63, 2**64, 10**40, "", " ", "sim", "\x00"),
    *(
        "\ud7ff\ue000\uffff",
        "\u017fim",
        "true",
        "1",
        "a" * 5000,
        [],
        [[]],
        [None],
        [0],
        {},
        {"": {}},
        {"a": [{"b": None}]},
    ),
]
RAW_VALUES = [b"1e999", b"-1e999", b"9" * 4500, b"0." + b"0" * 400 + b"1", b"NaN", b"-", b'"\\ud800"', b'"\\u0000"']
RAW_VALUES += [b"01", b"tru", b"'x'", b"\xff", b'"\xc0\xaf"', b'"\xed\xa0\x80"', b'"\x00"', b"/**/1", b"+1", b".5", b""]


def mutated_body(random: Random, document: dict[str, Any]) -> bytes:
    """Return the document as bytes, one to three times mutated."""
    structural, text = random.choice(_BODY_STEPS)
    changed = json.loads(json.dumps(document))
    for _ in range(random.randint(1, 3)):
        structural(random, changed)
    body = json.dumps(changed, ensure_ascii=random.random() < 0.5).encode("utf-8", "surrogatepass")
    return text(random, body)


def _same(_random: Random, _document: Any) -> None:
    """Leave the document, for the bytes to be changed."""


def _unchanged(_random: Random, body: bytes) -> bytes:
    return body


def _odd(random: Random) -> Any:
    return copy.deepcopy(random.choice(ODD_VALUES))  # the next step may change it


def _odd_value(random: Random, document: dict[str, Any]) -> None:
    holder: Any = document
    while True:
        at = random.choice(list(holder) if isinstance(holder, dict) else range(len(holder)))
        inner = holder[at]
        if not inner or not isinstance(inner, dict | list) or random.random() < 0.4:
            holder[at] = _odd(random)
            return
        holder = inner


def _odd_field(random: Random, document: dict[str, Any]) -> None:
    names = ["model", "messages", "prompt", "input", "stream", "stream_options", "n", "max_tokens", "store", "system"]
    names += ["max_completion_tokens", "max_output_tokens", "tools", "user", "prompt_cache_key", "priority", "stop"]
    names += ["previous_response_id", "background", "cache_salt", "metadata", "temperature", "response_format", ""]
    document[random.choice(names)] = _odd(random)


def _spelled(random: Random, document: dict[str, Any]) -> None:
    key = random.choice(list(document))
    other = random.choice([str.upper, str.title, str.swapcase, lambda text: text.replace("s", "\u017f"), _escaped])(key)
    document[other] = document[key] if random.random() < 0.5 else _odd(random)


def _escaped(text: str) -> str:
    return text + "\u0000"


def _without(random: Random, document: dict[str, Any]) -> None:
    document.pop(random.choice(list(document)), None)
    document["model"] = random.choice(["sim", "default", "nothing"])


def _flip(random: Random, body: bytes) -> bytes:
    changed = bytearray(body)
    for _ in range(random.randint(1, 6)):
        changed[random.randrange(len(changed))] ^= 1 << random.randrange(8)
    return bytes(changed)


def _cut(random: Random, body: bytes) -> bytes:
    return body[: random.randrange(len(body))]


def _insert(random: Random, body: bytes) -> bytes:
    at = random.randrange(len(body))
    return body[:at] + random.choice([random.randbytes(random.randint(1, 20)), *RAW_VALUES]) + body[at:]


def _repeat(random: Random, body: bytes) -> bytes:
    begin = random.randrange(len(body))
    piece = body[begin : begin + random.randint(1, 30)]
    return body[:begin] + piece * random.randint(2, 200) + body[begin + len(piece) :]


def _raw_value(random: Random, body: bytes) -> bytes:
    """Put what JSON has no value for in the place of one."""
    at = random.choice([found for found in range(len(body)) if body[found : found + 1] == b":"] or [0])
    return body[: at + 1] + random.choice(RAW_VALUES) + b"," + b'"x":' + body[at + 1 :]


def _nested(random: Random, body: bytes) -> bytes:
    depth = random.choice([10, 500, 990, 1000, 1010, 20_000])
    begin, end = random.choice([(b"[", b"]"), (b'{"a":', b"}"), (b'[{"image_url":', b"}]"), (b"[", b"")])
    return body[:-1] + b', "deep": ' + begin * depth + b"1" + end * depth + b"}"


def _doubled(random: Random, body: bytes) -> bytes:
    key = random.choice([b"model", b"messages", b"stream", b"n", b"max_tokens", b"input", b"\\u006dodel", b"x"])
    value = json.dumps(random.choice(ODD_VALUES)).encode()
    return b"{" + (b'"%b": %b, ' % (key, value)) * random.randint(1, 50) + body[1:]


def _encoded(random: Random, body: bytes) -> bytes:
    text = body.decode("utf-8", "replace")
    return random.choice(
        [
            text.encode("utf-16"),
            text.encode("utf-32-le"),
            b"\xef\xbb\xbf" + body,
            body + body,
            body + b"\x00",
            b" " + body,
        ]
    )


def _long(random: Random, body: bytes) -> bytes:
    filling = random.choice([b"a", b"\\u0041", b"\\n", b'\\"', "ü".encode(), b"\\ud83d\\ude00"])
    return body[:-1] + b', "long": "' + filling * random.choice([1000, 20_000]) + b'"}'


def _foreign(random: Random, _body: bytes) -> bytes:
    return random.choice([b"", b"null", b"[]", b'"a"', b"1", b"{}", b"\x1f\x8b\x08", b"a=b&c=d", b"<a/>", b"{" * 3000])


_BODY_STEPS: list[tuple[Callable[[Random, Any], None], Callable[[Random, bytes], bytes]]] = [
    *((step, _unchanged) for step in (_odd_value, _odd_value, _odd_field, _odd_field, _spelled, _without)),
    *((_same, step) for step in (_flip, _flip, _cut, _insert, _repeat, _raw_value, _nested, _doubled, _encoded)),
    *((_odd_field, step) for step in (_flip, _doubled, _long)),
    (_same, _long),
    (_same, _foreign),
]
