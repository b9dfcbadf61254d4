"""The official Anthropic SDK when something is wrong: its own error classes, Anthropic's error shape, its retries."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anthropic
import pytest

from tests.contract.test_anthropic_sdk import ASK, sdk
from tests.support.ledger import closed_event, closed_events

if TYPE_CHECKING:
    from tests.support.stack import Stack


class Counted:
    """The SDK with its retries on, and the status of every answer that it got."""

    def __init__(self, stack: Stack, key: str, max_retries: int = 2) -> None:
        self.statuses: list[int] = []
        hooks = {"response": [lambda response: self.statuses.append(response.status_code)]}
        http = anthropic.DefaultHttpxClient(event_hooks=hooks)
        self.client = sdk(stack, key, max_retries=max_retries, http_client=http)

    def ask(self, **fields: Any) -> Any:
        """Ask, and close the client."""
        try:
            return self.client.messages.create(**(ASK | fields))
        finally:
            self.client.close()


PERMANENT: dict[str, tuple[dict[str, Any], type[anthropic.APIStatusError], int, str]] = {
    "unknown model": ({"model": "nobody"}, anthropic.NotFoundError, 404, "not_found_error"),
    "model of others": ({"model": "hidden"}, anthropic.PermissionDeniedError, 403, "permission_error"),
    "wrong type": ({"messages": "hello"}, anthropic.BadRequestError, 400, "invalid_request_error"),
    "no messages": ({"messages": []}, anthropic.BadRequestError, 400, "invalid_request_error"),
}


@pytest.mark.parametrize("case", PERMANENT)
def test_what_cannot_succeed_is_told_once_in_the_class_for_it(stack: Stack, case: str) -> None:
    fields, kind, status, said = PERMANENT[case]
    counted = Counted(stack, stack.tenant(models=["coder"]).key)
    with pytest.raises(kind) as refused:
        counted.ask(**fields)
    error = refused.value
    assert (error.status_code, error.type) == (status, said)
    assert isinstance(error.body, dict)
    assert (error.body["type"], error.body["error"]["type"]) == ("error", said)
    assert error.body["error"]["message"]
    assert error.request_id
    assert counted.statuses == [status], "the SDK has retries left and does not use them"


def test_a_wrong_key_is_an_authentication_error(stack: Stack) -> None:
    counted = Counted(stack, "sk-pst-nobody")
    with pytest.raises(anthropic.AuthenticationError) as refused:
        counted.ask()
    assert refused.value.type == "authentication_error"
    assert counted.statuses == [401]


def test_a_prompt_that_is_too_long_is_told_in_the_words_that_agents_look_for(stack: Stack) -> None:
    counted = Counted(stack, stack.tenant().key)
    with pytest.raises(anthropic.BadRequestError, match="prompt is too long"):
        counted.ask(messages=[{"role": "user", "content": "word" * 5000}])
    assert counted.statuses == [400]


def test_a_request_that_never_fits_is_too_large_for_good(stack: Stack) -> None:
    counted = Counted(stack, stack.tenant(tokens_per_minute=100).key)
    with pytest.raises(anthropic.RequestTooLargeError, match="'type': 'request_too_large'"):
        counted.ask(messages=[{"role": "user", "content": "word " * 400}])
    assert counted.statuses == [413]


def test_a_spent_limit_is_a_rate_limit_error(stack: Stack) -> None:
    tenant = stack.tenant(requests_per_minute=1)
    Counted(stack, tenant.key).ask()
    with pytest.raises(anthropic.RateLimitError) as refused:
        Counted(stack, tenant.key, max_retries=0).ask()
    assert refused.value.type == "rate_limit_error"
    assert int(refused.value.response.headers["retry-after"]) > 0


def test_the_sdk_waits_as_told_and_succeeds(stack: Stack) -> None:
    """A bucket of one that refills in two seconds: the SDK's own back-off, half a second, would be refused again."""
    tenant = stack.tenant(requests_per_minute=30, requests_burst=1)
    Counted(stack, tenant.key).ask()
    counted = Counted(stack, tenant.key, max_retries=1)
    assert counted.ask().content
    assert counted.statuses == [429, 200]
    assert [row["status"] for row in closed_events(stack.dsn, tenant)].count("ok") == 2


def test_a_failing_engine_is_a_server_error_that_may_be_retried(stack: Stack) -> None:
    counted = Counted(stack, stack.tenant().key, max_retries=1)
    with pytest.raises(anthropic.InternalServerError) as refused:
        counted.ask(extra_body={"sim": {"status": 500}})
    assert refused.value.type == "api_error"
    assert len(counted.statuses) == 2


def test_a_stream_that_breaks_off_is_an_error_and_no_end(stack: Stack) -> None:
    with (
        sdk(stack, stack.tenant().key) as client,
        client.messages.stream(**ASK, extra_body={"sim": {"abort_after_chunks": 6}}) as stream,
        pytest.raises((anthropic.APIStatusError, anthropic.APIConnectionError)),
    ):
        stream.get_final_message()
    row = closed_event(stack.dsn, stream.response.headers["request-id"])
    assert (row["status"], row["coverage"]) == ("upstream_error", "estimated")
