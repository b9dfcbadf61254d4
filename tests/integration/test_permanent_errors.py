"""Every permanent error of the data path and of the control plane tells clients not to try again."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.chat import chat
from tests.support.permanent import ADMIN, CHAT, REPLICA, admin, permanent_classes, refused_requests
from tests.support.refusals import assert_refused
from tests.support.stack import Stack, running_stack

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gateway.dev.servers import ServerAddresses
    from tests.support.servers import Databases


@pytest.fixture(scope="module")
def stack(databases: Databases, servers: ServerAddresses, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """One replica with small bounds."""
    with running_stack(databases, servers, tmp_path_factory.mktemp("permanent"), **REPLICA) as running:
        yield running


def test_every_permanent_error_says_that_trying_again_is_in_vain(stack: Stack) -> None:
    cases = refused_requests(stack)
    anybody = stack.gateway.http()
    for method, path, document, headers, status, code in cases:
        answer = anybody.ask(method, path, document, headers)
        assert answer.headers.get("x-should-retry") == "false", (method, path, answer)
        assert_refused(answer, status, code, answer.error["param"])
    assert {code for *_, code in cases} == {each.code for each in permanent_classes()}


def test_what_may_pass_does_not_say_so(stack: Stack) -> None:
    may = admin(stack.dsn)
    anybody = stack.gateway.http()
    assert anybody.post(ADMIN, {"name": "twice"}, may).status == 201
    taken = anybody.post(ADMIN, {"name": "twice"}, may)
    limited = stack.client(requests_per_minute=1, requests_burst=1)
    assert limited.post(CHAT, chat()).status == 200
    for answer, status in ((taken, 409), (limited.post(CHAT, chat()), 429)):
        assert answer.status == status
        assert "x-should-retry" not in answer.headers
