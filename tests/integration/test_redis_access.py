"""Who gets at Redis, and how: TLS that is verified, users with the rights of docs/redis.md and no other."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest
import redis
import structlog
from redis.exceptions import NoPermissionError

from gateway.errors import LimiterUnavailable
from tests.support.scripts import COUNT, running_scripts
from tests.support.source import REPOSITORY
from tests.support.tls import Authority, TlsProxy

if TYPE_CHECKING:
    from pathlib import Path

    from gateway.dev.children import RunningServer

PATIENCE_S = 5.0
KEY = "pst:{organization}:x"
RIGHTS = (REPOSITORY / "docs" / "redis.md").read_text("utf-8")


async def outcome(url: str) -> str:
    """Return "counted", or why Redis is away."""
    with structlog.testing.capture_logs() as logs:
        async with running_scripts(url, PATIENCE_S) as scripts:
            try:
                await scripts.call(COUNT, (1, KEY, 1))
            except LimiterUnavailable:
                assert not scripts.available
                assert [line["event"] for line in logs] == ["redis_away"]
                return str(logs[0]["reason"])
    return "counted"


async def test_a_certificate_is_verified_unless_it_is_told_not_to_be(redis_url: str, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    trusting = f"?ssl_ca_certs={authority.certificate}"
    with TlsProxy(redis_url, authority.context(authority.issue("localhost"))) as proxy:
        assert await outcome(proxy.address + trusting) == "counted"
        assert "CERTIFICATE_VERIFY_FAILED" in await outcome(proxy.address)
        assert await outcome(proxy.address + "?ssl_cert_reqs=none") == "counted"
    with TlsProxy(redis_url, authority.context(authority.issue("elsewhere.example"))) as proxy:
        assert "mismatch" in await outcome(proxy.address + trusting)
        assert await outcome(proxy.address + trusting + "&ssl_check_hostname=false") == "counted"


async def test_a_certificate_is_shown_where_redis_asks_for_one(redis_url: str, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    mine = authority.issue("penstock")
    context = authority.context(authority.issue("localhost"), asks_clients=True)
    with TlsProxy(redis_url, context) as proxy:
        trusting = f"{proxy.address}?ssl_ca_certs={authority.certificate}"
        shown = f"&ssl_certfile={mine.certificate}&ssl_keyfile={mine.key}"
        assert await outcome(trusting + shown) == "counted"
        assert await outcome(trusting) != "counted"


def documented_rights() -> list[str]:
    """Return the rule of docs/redis.md, without the user's name and password."""
    found = re.search(r"^ACL SETUSER penstock on >PASSWORD (.*)$", RIGHTS, re.MULTILINE)
    assert found, "docs/redis.md has the rule"
    return found[1].split()


def as_user(server: RunningServer, rights: list[str]) -> str:
    """Make a user with these rights and no other; return its address."""
    with redis.Redis.from_url(server.address) as client:
        client.execute_command("ACL", "SETUSER", "penstock", "reset", "on", ">pass/word@", *rights)
    return f"redis://penstock:pass%2Fword%40@127.0.0.1:{urlsplit(server.address).port}/0"


async def probed(url: str) -> str:
    """Return "well" where all that scripts do is allowed, or what is not."""
    with structlog.testing.capture_logs() as logs:
        async with running_scripts(url, PATIENCE_S) as scripts:
            well = await scripts.nodes[0]._answers()
    return "well" if well else str(logs[0]["reason"])


async def test_the_documented_rights_suffice_and_each_that_scripts_need_is_needed(own_redis: RunningServer) -> None:
    rights = documented_rights()
    with structlog.testing.capture_logs() as logs:
        async with running_scripts(as_user(own_redis, rights), PATIENCE_S) as scripts:
            await scripts.check()
            assert await scripts.nodes[0]._answers()
    assert logs == []
    beside = {"+info", "+ping", "+client|setname", "+client|setinfo"}
    for right in [right for right in rights if right.startswith("+") and right not in beside]:
        with redis.Redis.from_url(own_redis.address) as client:
            client.script_flush()
        told = await probed(as_user(own_redis, [each for each in rights if each != right]))
        assert re.search(r"NOPERM|can't run this command|ACL failure", told), (right, told)


@pytest.mark.parametrize(
    ("user", "told"),
    [("penstock:wrong", "invalid username-password"), ("", "must be called with the client already authenticated")],
)
async def test_a_wrong_password_and_none_are_told(own_redis: RunningServer, user: str, told: str) -> None:
    as_user(own_redis, documented_rights())
    port = urlsplit(own_redis.address).port
    assert told in await outcome(f"redis://{user}{'@' if user else ''}127.0.0.1:{port}/0")


async def test_keys_that_are_not_its_own_are_none_of_its_users_business(own_redis: RunningServer) -> None:
    url = as_user(own_redis, documented_rights())
    with redis.Redis.from_url(url) as client, pytest.raises(NoPermissionError):
        client.get("somebody else's")


async def test_without_info_the_check_says_so_and_all_else_works(own_redis: RunningServer) -> None:
    url = as_user(own_redis, [right for right in documented_rights() if right != "+info"])
    with structlog.testing.capture_logs() as logs:
        async with running_scripts(url, PATIENCE_S) as scripts:
            await scripts.check()
            assert await scripts.nodes[0]._answers()
    assert [line["event"] for line in logs] == ["redis_unchecked"]
