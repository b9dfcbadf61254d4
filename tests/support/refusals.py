"""What every refusal has in common, whatever was wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import UUID

from gateway.edge.errors import RETRIED_WORDS

if TYPE_CHECKING:
    from tests.support.http import Answer

TEMPORARY = {408, 429}


def assert_refused(answer: Answer, status: int, code: str, param: str | None = None) -> None:
    """Assert the whole of a refusal: status, shape, code, field, id, and that no client will retry it in vain."""
    assert (answer.status, answer.error["code"]) == (status, code), answer
    assert answer.error.keys() == {"message", "type", "param", "code"}
    assert answer.error["param"] == param
    assert isinstance(answer.error["message"], str)
    assert answer.headers["content-type"] == "application/json"
    assert UUID(answer.request_id).version == 7
    if status not in TEMPORARY:
        assert not RETRIED_WORDS.search(answer.body.decode()), answer.body
        assert answer.headers["x-should-retry"] == "false"
