"""What of a prompt no client can shorten: the tools and the instructions that stand before every conversation.

Agents answer 413 by having the model sum the conversation up, a request of its own that is paid for, and then go on.
Where the instructions alone never fit, that helps nothing and they do it again, for ever.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from gateway.domain.call import Fields

_FIXED = ("tools", "functions", "system", "instructions")
_ROLES = frozenset({"system", "developer"})


class _Message(msgspec.Struct):
    role: str | None = None
    content: msgspec.Raw = msgspec.Raw(b"")


_decode_messages = msgspec.json.Decoder(list[_Message]).decode


def instruction_tokens(fields: Fields, bytes_per_token: float) -> int:
    """Return an estimate of the tokens in a request's tools and instructions, from their size as JSON; 0 for none."""
    size = sum(len(bytes(fields[name])) for name in _FIXED if name in fields)
    if "messages" in fields:
        try:
            messages = _decode_messages(fields["messages"])
        except (msgspec.DecodeError, UnicodeDecodeError):  # for the engine to refuse
            messages = []
        size += sum(len(bytes(message.content)) for message in messages if message.role in _ROLES)
    return math.ceil(size / bytes_per_token)
