"""The official OpenAI SDK through the gateway when something is wrong: its own error classes, its retries, hang-ups."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import UUID

import openai
import pytest

from tests.contract.conftest import sdk
from tests.support.ledger import closed_event, closed_events

if TYPE_CHECKING:
    from collections.abc import Callable

    from openai.types.chat import ChatCompletionMessageParam

    from tests.support.stack import Stack

HELLO: list[ChatCompletionMessageParam] = [{"role": "user", "content": "hello"}]
ENDLESS = {"sim": {"output_tokens": 1000, "tokens_per_second": 50}}


class Counted:
    """The SDK with its retries on, and the status of every answer that it got."""

    def __init__(self, stack: Stack, key: str, max_retries: int = 2) -> None:
        self.statuses: list[int] = []
        hooks = {"response": [lambda response: self.statuses.append(response.status_code)]}
        http = openai.DefaultHttpx2Client(event_hooks=hooks)
        self.client = sdk(stack, key, max_retries, http_client=http)

    def chat(self, **fields: Any) -> Any:
        """Ask, and close the client."""
        try:
            return self.client.chat.completions.create(**({"model": "coder", "messages": HELLO} | fields))
        finally:
            self.client.close()


PERMANENT: dict[str, tuple[Callable[[openai.OpenAI], object], type[openai.APIStatusError], int, str, str | None]] = {
    "unknown model": (
        lambda client: client.chat.completions.create(model="nobody", messages=HELLO),
        openai.NotFoundError,
        404,
        "model_not_found",
        "model",
    ),
    "model to retrieve": (
        lambda client: client.models.retrieve("nobody"),
        openai.NotFoundError,
        404,
        "model_not_found",
        "model",
    ),
    "model of others": (
        lambda client: client.chat.completions.create(model="hidden", messages=HELLO),
        openai.PermissionDeniedError,
        403,
        "model_not_allowed",
        "model",
    ),
    "wrong type": (
        lambda client: client.chat.completions.create(model="coder", messages=HELLO, extra_body={"n": "two"}),
        openai.BadRequestError,
        400,
        "invalid_request",
        "n",
    ),
    "no messages": (
        lambda client: client.post("/chat/completions", body={"model": "coder"}, cast_to=object),
        openai.BadRequestError,
        400,
        "invalid_request",
        "messages",
    ),
    "no such address": (
        lambda client: client.post("/no/such/thing", body={}, cast_to=object),
        openai.NotFoundError,
        404,
        "not_found",
        None,
    ),
}


@pytest.mark.parametrize("case", PERMANENT)
def test_what_cannot_succeed_is_told_once_in_the_class_for_it(stack: Stack, case: str) -> None:
    ask, kind, status, code, param = PERMANENT[case]
    counted = Counted(stack, stack.tenant(models=["coder"]).key)
    with counted.client, pytest.raises(kind) as refused:
        ask(counted.client)
    error = refused.value
    assert (error.status_code, error.code, error.param) == (status, code, param)
    assert error.request_id is not None
    assert UUID(error.request_id).version == 7
    assert error.response.headers.get("x-should-retry", "false") == "false"
    assert counted.statuses == [status], "the SDK has retries left and does not use them"


@pytest.mark.parametrize("key", ["sk-pst-nobody", "not a key", "sk-pst-AAAAAAAAAAAAAAAA_" + "A" * 40])
def test_a_wrong_key_is_an_authentication_error(stack: Stack, key: str) -> None:
    counted = Counted(stack, key)
    with pytest.raises(openai.AuthenticationError) as refused:
        counted.chat()
    assert (refused.value.code, refused.value.type) == ("invalid_api_key", "authentication_error")
    assert refused.value.request_id
    assert counted.statuses == [401]


def test_a_revoked_key_is_an_authentication_error(stack: Stack) -> None:
    tenant = stack.tenant()
    tenant.revoke()
    with pytest.raises(openai.AuthenticationError):
        Counted(stack, tenant.key).chat()


def test_a_spent_limit_is_a_rate_limit_error_that_says_when(stack: Stack) -> None:
    with sdk(stack, stack.tenant(requests_per_minute=1).key) as client:
        client.chat.completions.create(model="coder", messages=HELLO)
        with pytest.raises(openai.RateLimitError) as refused:
            client.chat.completions.create(model="coder", messages=HELLO)
    error = refused.value
    assert (error.code, error.type) == ("rate_limit_exceeded", "rate_limit_error")
    wait_ms = int(error.response.headers["retry-after-ms"])
    assert 0 < wait_ms <= 60_000
    assert int(error.response.headers["retry-after"]) == -(-wait_ms // 1000)
    assert "requests" in error.message


def test_the_sdk_waits_as_told_and_succeeds(stack: Stack) -> None:
    """A bucket of one that refills in two seconds: the SDK's own back-off, half a second, would be refused again."""
    tenant = stack.tenant(requests_per_minute=30, requests_burst=1)
    assert Counted(stack, tenant.key).chat().choices
    counted = Counted(stack, tenant.key, max_retries=1)
    assert counted.chat().choices[0].message.content
    assert counted.statuses == [429, 200]
    assert [row["status"] for row in closed_events(stack.dsn, tenant)].count("ok") == 2


def test_a_request_that_never_fits_is_too_large_for_good(stack: Stack) -> None:
    counted = Counted(stack, stack.tenant(tokens_per_minute=100).key)
    with pytest.raises(openai.APIStatusError) as refused:
        counted.chat(messages=[{"role": "user", "content": "word " * 400}])
    assert (refused.value.status_code, refused.value.code) == (413, "request_exceeds_limit")
    assert counted.statuses == [413]


def test_what_the_engine_refuses_keeps_its_class_and_code(stack: Stack) -> None:
    counted = Counted(stack, stack.tenant().key)
    with pytest.raises(openai.BadRequestError) as refused:
        counted.chat(messages=[{"role": "user", "content": "word" * 5000}])
    assert refused.value.code == "context_length_exceeded"
    assert counted.statuses == [400]


def test_a_failing_engine_is_a_server_error_that_may_be_retried(stack: Stack) -> None:
    counted = Counted(stack, stack.tenant().key, max_retries=1)
    with pytest.raises(openai.InternalServerError) as refused:
        counted.chat(extra_body={"sim": {"status": 500}})
    assert refused.value.status_code >= 500
    assert refused.value.request_id
    assert len(counted.statuses) == 2


def test_a_stream_that_breaks_off_is_an_error_and_no_end(stack: Stack) -> None:
    breaks = {"sim": {"abort_after_chunks": 4}}
    seen = 0
    with sdk(stack, stack.tenant().key) as client:
        stream = client.chat.completions.create(model="coder", messages=HELLO, stream=True, extra_body=breaks)
        with pytest.raises(openai.APIError):  # noqa: PT012 - the break comes somewhere in the iteration
            for chunk in stream:
                assert chunk.choices[0].finish_reason is None
                seen += 1
    assert seen <= 4
    row = closed_event(stack.dsn, stream.response.headers["x-request-id"])
    assert (row["status"], row["coverage"]) == ("upstream_error", "estimated")


def test_closing_a_stream_reaches_the_engine_and_is_billed(stack: Stack) -> None:
    aborted = stack.engine.counters()["aborted"]
    with sdk(stack, stack.tenant().key) as client:
        stream = client.chat.completions.create(model="coder", messages=HELLO, stream=True, extra_body=ENDLESS)
        texts = [next(stream).choices[0].delta.content for _ in range(3)]
        stream.close()
        stack.engine.wait_for(lambda counters: counters["aborted"] == aborted + 1)
    row = closed_event(stack.dsn, stream.response.headers["x-request-id"])
    assert row["status"] == "client_closed"
    assert row["completion_tokens"] >= len([text for text in texts if text])
    assert row["cost_pico_usd"] > 0
