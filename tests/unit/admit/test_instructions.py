"""What no client can shorten: told from the conversation, whatever the dialect."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from gateway.admit.instructions import instruction_tokens

LONG = "x" * 400


@pytest.mark.parametrize(
    ("document", "instructions"),
    [
        ({"messages": [{"role": "user", "content": LONG}]}, 0),
        ({"messages": [{"role": "system", "content": LONG}, {"role": "user", "content": LONG}]}, 402),
        ({"messages": [{"role": "developer", "content": [{"text": LONG}]}]}, len(f'[{{"text":"{LONG}"}}]')),
        ({"messages": [{"role": "system"}, {}]}, 0),
        ({"system": LONG, "messages": [{"role": "user", "content": LONG}]}, 402),
        ({"instructions": LONG, "input": LONG}, 402),
        ({"tools": [LONG], "prompt": LONG}, 404),
        ({"tools": [LONG], "messages": [7]}, 404),
        ({"messages": "no list"}, 0),
        ({}, 0),
    ],
)
def test_instructions_are_counted_and_the_conversation_is_not(document: dict[str, Any], instructions: int) -> None:
    body = json.dumps(document, separators=(",", ":")).encode()
    fields = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
    assert instruction_tokens(fields, 1.0) == instructions
    assert instruction_tokens(fields, 4.0) == -(-instructions // 4)
