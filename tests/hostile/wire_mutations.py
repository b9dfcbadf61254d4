"""What a fuzzer makes of a request's head and framing. See `tests.hostile.mutations`."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from random import Random

METHODS = [
    b"GET",
    b"PUT",
    b"DELETE",
    b"HEAD",
    b"OPTIONS",
    b"TRACE",
    b"CONNECT",
    b"post",
    b"P OST",
    b"PATCH",
    b"",
    b"PRI",
]
TARGETS = [
    b"/",
    b"",
    b"*",
    b"//v1/models",
    b"/v1/%2e%2e/admin/v1/keys",
    b"/v1/models/%00",
    b"/v1/models/%ff%fe",
    b"/\xff",
]
TARGETS += [b"http://x/v1/models", b"http://x:y/v1/models", b"/v1/models?" + b"a" * 4000, b"/v1/models/..%2f..", b"x:y"]
TARGETS += [
    b"/v1/models#a",
    b"/v1/models/" + b"%41" * 900,
    b"/v1/ models",
    b"/openapi.json",
    b"/admin/v1/keys?limit=\x01",
]
VERSIONS = [
    b"HTTP/1.0",
    b"HTTP/2.0",
    b"HTTP/0.9",
    b"http/1.1",
    b"HTTP/1.1 ",
    b"HTTP/11",
    b"",
    b"HTTP/1.\xb9",
    b"ICY/1.1",
]
NAMES = [b"x", b"", b" ", b"content-length", b"transfer-encoding", b"host", b"connection", b"expect", b"upgrade", b"te"]
NAMES += [
    b"authorization",
    b"x-api-key",
    b"x-session-id",
    b"content-encoding",
    b"cookie",
    b"x\x00",
    b"x y",
    b"x\x7f",
    b"\xe9",
]
NAMES += [
    b"content-length ",
    b"Content_Length",
    b"trailer",
    b"x" * 3000,
    b"x-sim-status",
    b"keep-alive",
    b"range",
    b":path",
]
VALUES = [
    b"",
    b" ",
    b"\t",
    b"0",
    b"-1",
    b"+5",
    b"5, 5",
    b"0x10",
    b"1e3",
    b"9" * 30,
    b"chunked",
    b"chunked, identity",
    b"close",
]
VALUES += [
    b"gzip, chunked",
    b"xchunked",
    b"chunked\x0b",
    b"100-continue",
    b"websocket",
    b"h2c",
    b"\xff\xfe",
    b"a\x00b",
    b"a\rb",
]
VALUES += [
    b"Bearer",
    b"Bearer ",
    b"Bearer \xff\xff",
    b"Basic YTpi",
    b"Bearer sk-pst-a_b",
    b"a\r\n b",
    b"a" * 9000,
    b"\x01",
]
SIZES = [
    b"0",
    b"%x",
    b"0%x",
    b"%X ",
    b"%x;a=b",
    b'%x;a="b\\"c"',
    b"-1",
    b"+%x",
    b"0x%x",
    b"ffffffffffffffff",
    b"fffffffffffffffff",
]
SIZES += [b"", b" %x", b"%x\t", b"%x;" + b"a" * 3000, b"g", b"1", b"%x\n"]
ENDS = [b"\r\n\r\n", b"\n\n", b"\r\n", b"\r\r", b"", b"\n\r\n", b"\r\n \r\n", b"\r\nx: y\r\n\r\n", b"\x00\r\n\r\n"]


def mutated_request(random: Random, path: bytes, key: bytes, body: bytes) -> bytes:
    """Return a request for a path whose head or framing is wrong in one or two ways."""
    method, target, version = b"POST", b"/v1/" + path, b"HTTP/1.1"
    lines = [b"host: x", b"authorization: Bearer " + key, b"content-type: application/json"]
    end, framed, length = b"\r\n\r\n", body, b"content-length: %d" % len(body)
    for _ in range(random.randint(1, 2)):
        match random.randrange(10):
            case 0:
                method = random.choice(METHODS)
            case 1:
                target = random.choice(TARGETS)
            case 2:
                version = random.choice(VERSIONS)
            case 3 | 4 | 5:
                line = random.choice(NAMES) + random.choice([b":", b": ", b" : ", b":\t", b""]) + random.choice(VALUES)
                lines.insert(random.randint(0, len(lines)), line)
            case 6:
                length = b"content-length: %d" % max(len(body) + random.choice([-len(body), -5, -1, 1, 5, 10**6]), 0)
            case 7 | 8:
                length, framed = b"transfer-encoding: chunked", _chunked(random, body)
            case _:
                end = random.choice(ENDS)
    request = b" ".join((method, target, version)) + b"\r\n" + b"\r\n".join([*lines, length]) + end + framed
    return _broken(random, request)


def _chunked(random: Random, body: bytes) -> bytes:
    pieces = []
    at = 0
    while at < len(body):
        piece = body[at : at + random.randint(1, 40)]
        at += len(piece)
        size = random.choice(SIZES) if random.random() < 0.1 else b"%x"
        pieces.append((size % len(piece) if b"%" in size else size) + b"\r\n" + piece + b"\r\n")
    return b"".join(pieces) + random.choice(
        [b"0\r\n\r\n", b"0\r\nx: y\r\n\r\n", b"0\r\n", b"", b"00\r\n\r\n", b"0\n\n", b"-0\r\n\r\n"]
    )


def _broken(random: Random, request: bytes) -> bytes:
    match random.randrange(12):
        case 0:
            return request[: random.randrange(len(request))]
        case 1:
            changed = bytearray(request)
            for _ in range(random.randint(1, 4)):
                changed[random.randrange(len(changed))] = random.randrange(256)
            return bytes(changed)
        case 2:
            return request.replace(b"\r\n", random.choice([b"\n", b"\r", b"\r\n\r\n", b"\n\r"]), random.randint(1, 3))
        case 3:
            return random.randbytes(random.randint(1, 300))
    return request
