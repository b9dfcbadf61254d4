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
    problem = answer.headers["content-type"] == "application/problem+json"
    own = {"title", "status", "detail", "instance"} if problem else {"message"}
    assert answer.error.keys() == {"type", "param", "code", *own}
    assert answer.error["param"] == param
    assert isinstance(answer.error["detail" if problem else "message"], str)
    assert problem or answer.headers["content-type"] == "application/json"
    assert UUID(answer.request_id).version == 7
    if status not in TEMPORARY:
        assert not RETRIED_WORDS.search(without_id(answer)), answer.body
        assert answer.headers["x-should-retry"] == "false"


def without_id(answer: Answer) -> str:
    """Return the body without the request's id, in which any digits may stand: those of a status by accident."""
    return answer.body.decode().replace(answer.request_id, "")
