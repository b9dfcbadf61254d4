"""Why something failed is always said in words, also where the error has none of its own."""

from __future__ import annotations

import pytest

from gateway.errors import UpstreamFailed, reason_of


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (TimeoutError(), "no answer in time"),
        (TimeoutError("no heartbeat"), "TimeoutError: no heartbeat"),
        (ConnectionResetError(), "ConnectionResetError"),
        (ConnectionRefusedError(111, "refused"), "ConnectionRefusedError: [Errno 111] refused"),
        (UpstreamFailed("the engine went away"), "the engine went away"),
    ],
)
def test_a_reason_has_words(error: Exception, reason: str) -> None:
    assert reason_of(error) == reason
