"""How a command speaks to a gateway: what it sends again and what never, and what it makes of strange answers."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

import httpx2
import pytest

from gateway.cli import api as module
from gateway.cli.api import ATTEMPTS_MAX, Api, Client, client_of
from gateway.cli.place import Remote
from gateway.errors import GatewayError, InvalidRequest, NotFound

if TYPE_CHECKING:
    from collections.abc import Callable

URL = "https://gateway.example"
PLACE = Remote(URL, "adm-pst-secret", "a test")
MADE = httpx2.Response(201, json={"id": "x"})


class Scripted(httpx2.AsyncBaseTransport):
    """Answers with what it is given, one after another; an exception is raised."""

    def __init__(self, *answers: httpx2.Response | Exception) -> None:
        self.answers = [*answers]
        self.requests: list[httpx2.Request] = []

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        self.requests.append(request)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


@pytest.fixture(autouse=True)
def no_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RETRY_WAIT_S", 0.0)
    monkeypatch.setattr(module, "RETRY_WAIT_S_MAX", 0.0)


def ask(transport: Scripted, call: Callable[[Api], Any]) -> Any:
    """Return what a call of the API answers."""

    async def connect(_place: object) -> Client:
        stack = AsyncExitStack()
        return Client(await stack.enter_async_context(client_of(transport, URL, {})), stack)

    with Api(lambda: PLACE, connect) as api:
        return call(api)


def problem(status: int, code: str, detail: str = "no", **headers: str) -> httpx2.Response:
    return httpx2.Response(status, json={"detail": detail, "code": code, "param": "team"}, headers=headers)


def make(api: Api) -> Any:
    return api.post("organizations", body={"name": "acme"})


@pytest.mark.parametrize(
    "lost",
    [
        httpx2.ConnectError("refused"),
        httpx2.ReadError("reset"),
        httpx2.ReadTimeout("slow"),
        httpx2.RemoteProtocolError("cut"),
        problem(503, "unavailable", **{"retry-after": "1"}),
    ],
)
def test_a_post_whose_answer_is_lost_is_sent_again_under_its_key(lost: httpx2.Response | Exception) -> None:
    transport = Scripted(lost, MADE)
    assert ask(transport, make) == {"id": "x"}
    first, second = transport.requests
    assert len(first.headers["idempotency-key"]) >= 16
    assert second.headers["idempotency-key"] == first.headers["idempotency-key"]
    assert second.content == first.content == b'{"name":"acme"}'


def test_two_calls_have_two_keys() -> None:
    transport = Scripted(MADE, httpx2.Response(201, json={}))
    ask(transport, lambda api: (make(api), make(api)))
    first, second = transport.requests
    assert first.headers["idempotency-key"] != second.headers["idempotency-key"]


def test_it_is_tried_a_few_times_and_then_told() -> None:
    transport = Scripted(*[httpx2.ConnectError("refused")] * ATTEMPTS_MAX)
    with pytest.raises(GatewayError, match=f"cannot reach {URL}: refused; check its address"):
        ask(transport, make)
    assert transport.answers == []


def test_what_may_have_been_done_and_cannot_be_repeated_is_said_so() -> None:
    transport = Scripted(httpx2.ReadError("reset"))
    with pytest.raises(GatewayError, match="the change may have been made: look before you repeat it"):
        ask(transport, lambda api: api.delete("teams", "core"))
    refused = Scripted(httpx2.ConnectError("refused"), httpx2.Response(200, json={}))
    assert ask(refused, lambda api: api.delete("teams", "core")) == {}, "it never arrived"


def test_a_503_that_names_no_time_is_final() -> None:
    transport = Scripted(problem(503, "storage_unavailable", "Postgres does not answer"))
    with pytest.raises(GatewayError, match="Postgres does not answer") as raised:
        ask(transport, make)
    assert raised.value.__notes__ == [URL]


def test_problems_are_the_errors_that_commands_know() -> None:
    with pytest.raises(NotFound) as missing:
        ask(Scripted(problem(404, "not_found")), lambda api: api.get("teams", "x"))
    assert missing.value.param == "team"
    with pytest.raises(InvalidRequest, match="--unchecked-model takes it all the same"):
        ask(Scripted(problem(400, "invalid_request", '"unchecked_model": true takes it all the same')), make)
    with pytest.raises(GatewayError, match=r"^\?\[2Jgone") as raised:
        ask(Scripted(problem(409, "conflict", "\x1b[2Jgone")), make)
    assert (raised.value.status, raised.value.code) == (409, "conflict")


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (httpx2.Response(302, headers={"location": "https://elsewhere.example"}), "an admin key does not follow"),
        (httpx2.Response(502, text="<html>bad gateway</html>"), "status 502 and without a reason: is it a gateway"),
        (httpx2.Response(200, text="<html>hello</html>"), "something else than JSON: is it a gateway"),
        (httpx2.Response(200), "something else than JSON: is it a gateway"),
        (httpx2.Response(200, text="[" * 100_000), "something else than JSON: is it a gateway"),
        (httpx2.Response(500, text="[" * 100_000), "status 500 and without a reason: is it a gateway"),
        (httpx2.Response(200, text="[1]"), "something else than was asked for: is it a gateway"),
    ],
)
def test_what_is_no_gateway_is_told(answer: httpx2.Response, message: str) -> None:
    with pytest.raises(GatewayError, match=message):
        ask(Scripted(answer), lambda api: api.get("teams"))


def test_an_answer_without_end_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ANSWER_BYTES_MAX", 10)
    with pytest.raises(GatewayError, match="answers with more than 10 bytes"):
        ask(Scripted(httpx2.Response(200, content=b"x" * 11)), lambda api: api.get("teams"))


def test_a_list_is_whole_and_names_are_quoted() -> None:
    pages = [{"data": [{"id": 1}], "next_after": "1"}, {"data": [{"id": 2}], "next_after": None}]
    transport = Scripted(*(httpx2.Response(200, json=page) for page in pages))
    assert ask(transport, lambda api: api.every("teams", "a b?", "members", org=None)) == [{"id": 1}, {"id": 2}]
    assert [str(request.url) for request in transport.requests] == [
        f"{URL}/admin/v1/teams/a%20b%3F/members?limit=1000",
        f"{URL}/admin/v1/teams/a%20b%3F/members?limit=1000&after=1",
    ]


@pytest.mark.parametrize("name", ["a/b", "..", "."])
def test_a_name_that_would_be_another_address_is_refused(name: str) -> None:
    transport = Scripted()
    with pytest.raises(InvalidRequest, match="give the id"):
        ask(transport, lambda api: api.delete("teams", name))
    assert transport.requests == []


def test_no_repr_shows_the_credential() -> None:
    assert "secret" not in repr(PLACE)
