"""The engine's chat template: messages and tools become one prompt, so that its tokens can be counted.

Each message is `<|im_start|>role\\n…<|im_end|>\\n`; tools stand before the first message as JSON, one a line; tool
calls of the assistant follow its text as `<tool_call>{"name":…,"arguments":…}</tool_call>`; the prompt ends by opening
the assistant's turn. An image or other media counts as `MEDIA_TOKENS`, whatever its size, filled with its digest so
that the prefix cache tells two images apart. The same conversation is the same prompt in every dialect: ids are left
out, and JSON is written anew.
"""

import hashlib
from collections.abc import Sequence

import msgspec

from gateway.dev.engine.requests import CalledFunction, Message, Part, Tool
from gateway.dev.engine.tokenizer import TOKEN_BYTES

MEDIA_TOKENS = 256
_ENCODER = msgspec.json.Encoder()


def render_chat(messages: Sequence[Message], tools: Sequence[Tool] | None) -> bytes:
    """Return the prompt of a conversation as the bytes that are tokenized."""
    parts: list[bytes] = []
    if tools:
        parts.append(b"<|im_start|>tools\n")
        parts.extend(_ENCODER.encode(tool) + b"\n" for tool in tools)
        parts.append(b"<|im_end|>\n")
    for message in messages:
        parts.append(b"<|im_start|>" + message.role.encode() + b"\n")
        if isinstance(message.content, list):
            parts.extend(_render_part(part) for part in message.content)
        elif message.content:
            parts.append(message.content.encode())
        parts.extend(_render_call(call.function) for call in message.tool_calls or ())
        parts.append(b"<|im_end|>\n")
    parts.append(b"<|im_start|>assistant\n")
    return b"".join(parts)


def _render_call(call: CalledFunction) -> bytes:
    return b'<tool_call>{"name":%b,"arguments":%b}</tool_call>' % (_ENCODER.encode(call.name), _anew(call.arguments))


def _anew(text: str | None) -> bytes:
    """Return the JSON in `text` without what its writer was free to choose; what is no JSON stays a string."""
    try:
        return _ENCODER.encode(msgspec.json.decode(text or "{}"))
    except (msgspec.MsgspecError, RecursionError):
        return _ENCODER.encode(text)


def _render_part(part: Part) -> bytes:
    if part.text is not None:
        return part.text.encode()
    digest = hashlib.sha256(_address_of(part.image_url) + bytes(part.input_audio)).digest()
    return (digest * (MEDIA_TOKENS * TOKEN_BYTES // len(digest)))[: MEDIA_TOKENS * TOKEN_BYTES]


def _address_of(image: msgspec.Raw) -> bytes:
    """Return an image's address, whichever of the two ways it was given in: `{"url": …}` or as a string."""
    given = msgspec.json.decode(image)
    address = given.get("url") if isinstance(given, dict) else given
    return address.encode() if isinstance(address, str) else bytes(image)
