"""Finds the images and documents that Anthropic's messages hold as base64, so that their size is not taken for tokens.

Only where they really stand: base64 in a text is text, and is read and paid as such.
"""

from __future__ import annotations

import msgspec

from gateway.domain.call import NO_MEDIA, Fields, InlineMedia

_NOTHING = msgspec.Raw(b"")
_MEDIA = frozenset({"image", "document"})


class _Source(msgspec.Struct):
    type: str | None = None
    data: msgspec.Raw = _NOTHING


class _Block(msgspec.Struct):
    type: str | None = None
    source: _Source | None = None
    content: msgspec.Raw = _NOTHING


class _Message(msgspec.Struct):
    content: msgspec.Raw = _NOTHING


_decode_messages = msgspec.json.Decoder(list[_Message]).decode
_decode_blocks = msgspec.json.Decoder(list[_Block]).decode


def inline_sources(fields: Fields) -> InlineMedia:
    """Return the media in the messages of a body; none where they are of an unforeseen shape."""
    messages = fields.get("messages")
    if messages is None or b'"base64"' not in bytes(messages):
        return NO_MEDIA
    sizes: list[int] = []
    try:
        for message in _decode_messages(messages):
            for block in _blocks(message.content):
                sizes += _sizes(block)
                for inner in _blocks(block.content) if block.type == "tool_result" else ():
                    sizes += _sizes(inner)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return NO_MEDIA  # for the engine to refuse
    return InlineMedia(sum(sizes), len(sizes))


def _blocks(content: msgspec.Raw) -> list[_Block]:
    blocks: list[_Block] = _decode_blocks(content) if bytes(memoryview(content)[:1]) == b"[" else []
    return blocks


def _sizes(block: _Block) -> list[int]:
    source = block.source
    return [len(source.data)] if block.type in _MEDIA and source is not None and source.type == "base64" else []
