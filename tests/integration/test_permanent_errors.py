"""Every permanent error of the data path and of the control plane tells clients not to try again."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from gateway.admin.bounds import BODY_BYTES_MAX
from gateway.admin.credentials import create_admin_credential
from gateway.admin.database import transaction_on
from gateway.admin.scope import PLATFORM
from gateway.errors import Forbidden, GatewayError
from tests.support.chat import chat
from tests.support.refusals import assert_refused
from tests.support.servers import run_blocking
from tests.support.stack import Stack, running_stack
from tests.support.tenants import NO_PEPPERS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gateway.dev.servers import ServerAddresses
    from tests.support.servers import Databases

CHAT = "/v1/chat/completions"
ADMIN = "/admin/v1/organizations"
HEADER_BYTES_MAX = 8192
DATA_BYTES_MAX = 65_536

NOT_MET = {Forbidden.code}
"""As long as every admin key is one of the whole platform, none of them may not do something."""

Case = tuple[str, str, object, dict[str, str], int, str]


@pytest.fixture(scope="module")
def stack(databases: Databases, servers: ServerAddresses, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """One replica with small bounds."""
    folder = tmp_path_factory.mktemp("permanent")
    with running_stack(
        databases, servers, folder, header_bytes_max=HEADER_BYTES_MAX, body_bytes_max=DATA_BYTES_MAX
    ) as running:
        yield running


def admin(dsn: str) -> dict[str, str]:
    """Return the header of a new admin key."""

    async def make() -> str:
        async with transaction_on(dsn) as db:
            return (await create_admin_credential(db, PLATFORM, NO_PEPPERS)).key

    return {"authorization": f"Bearer {run_blocking(make())}"}


def data_path(key: str, small: str, narrow: str) -> list[Case]:
    """Return requests of the data path that are wrong, with how each is refused."""
    may = {"authorization": f"Bearer {key}"}
    return [
        ("POST", CHAT, b"{", may, 400, "invalid_request"),
        ("POST", CHAT, chat(), {}, 401, "invalid_api_key"),
        ("POST", CHAT, chat(), {"authorization": f"Bearer {narrow}"}, 403, "model_not_allowed"),
        ("POST", CHAT, chat(model="nothing"), may, 404, "model_not_found"),
        ("GET", "/v1/models/nothing", None, may, 404, "model_not_found"),
        ("GET", "/", None, may, 404, "not_found"),
        ("POST", "/v1/nothing", {}, may, 404, "not_found"),
        ("DELETE", CHAT, None, may, 405, "method_not_allowed"),
        ("POST", "/livez", None, may, 405, "method_not_allowed"),
        ("POST", CHAT, b" " * (DATA_BYTES_MAX + 1), may, 413, "request_too_large"),
        ("POST", CHAT, chat("word " * 500), {"authorization": f"Bearer {small}"}, 413, "request_exceeds_limit"),
        ("POST", CHAT, chat(), {**may, "content-encoding": "gzip"}, 415, "unsupported_encoding"),
        ("POST", CHAT, chat(sim={"status": 422}), may, 422, "upstream_refused"),
        ("GET", "/v1/models", None, {**may, "x-long": "x" * HEADER_BYTES_MAX}, 431, "headers_too_large"),
    ]


def control_plane(may: dict[str, str]) -> list[Case]:
    """Return requests of the control plane that are wrong, with how each is refused."""
    return [
        ("POST", ADMIN, b"{", may, 400, "invalid_request"),
        ("POST", ADMIN, {"name": 5}, may, 400, "invalid_request"),
        ("GET", f"{ADMIN}?limit=0", None, may, 400, "invalid_request"),
        ("GET", ADMIN, None, {}, 401, "invalid_api_key"),
        ("DELETE", "/admin/v1/keys/nothing", None, may, 404, "not_found"),
        ("GET", "/admin/v1/nothing", None, may, 404, "not_found"),
        ("PUT", ADMIN, None, may, 405, "method_not_allowed"),
        ("POST", "/openapi.json", None, may, 405, "method_not_allowed"),
        ("POST", ADMIN, b" " * (BODY_BYTES_MAX + 1), may, 413, "request_too_large"),
    ]


def permanent(base: type[GatewayError] = GatewayError) -> Iterator[str]:
    """Yield the codes of all errors of the tree that are permanent."""
    for error in base.__subclasses__():
        if error("").permanent:
            yield error.code
        yield from permanent(error)


def test_every_permanent_error_says_that_trying_again_is_in_vain(stack: Stack) -> None:
    narrow, small = stack.tenant(models=["other"]), stack.tenant(tokens_per_minute=200)
    cases = [*data_path(stack.tenant().key, small.key, narrow.key), *control_plane(admin(stack.dsn))]
    anybody = stack.gateway.http()
    for method, path, document, headers, status, code in cases:
        answer = anybody.ask(method, path, document, headers)
        assert answer.headers.get("x-should-retry") == "false", (method, path, answer)
        assert_refused(answer, status, code, answer.error["param"])
    assert {code for *_, code in cases} == {*permanent()} - NOT_MET


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
