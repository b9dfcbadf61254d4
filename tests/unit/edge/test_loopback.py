"""Without keys: who is let in by where a gateway listens, by what name it is asked, and by which page."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from gateway.edge.loopback import FromHere, guard_of, require_loopback
from gateway.errors import ConfigError, Forbidden
from gateway.settings import load_settings
from gateway.units import new_event_id

if TYPE_CHECKING:
    from pathlib import Path
    from uuid import UUID

HERE = ["localhost", "LOCALHOST:8080", "localhost.:80", "app.localhost:8080", "127.0.0.1", "127.8.0.1:1", "[::1]:8080"]
ELSEWHERE = [
    *("evil.example", "evil.example:8080", "localhost.evil.example", "127.0.0.1.evil.example:8080", "0.0.0.0:8080"),
    *(
        "192.168.1.5:8080",
        "[::]:8080",
        "[::1",
        "[localhost]:80",
        "::1",
        "localhost:80:80",
        "localhost@evil.example",
        "",
    ),
    *("127.1", "2130706433", "localhost:8080.evil.example", "[::ffff:192.168.1.5]"),
]


class Endpoint:
    """Counts how often it was let be called."""

    def __init__(self) -> None:
        self.calls = 0

    async def __call__(self, scope: Any, receive: Any, send: Any, headers: dict[bytes, bytes], event_id: UUID) -> None:
        self.calls += 1


async def let_in(*, any_host: bool = False, **headers: str) -> bool:
    """Return whether a request with these headers reaches the endpoint."""
    endpoint = Endpoint()
    encoded = {name.encode(): value.encode("latin-1") for name, value in headers.items()}
    try:
        await FromHere(endpoint, any_host=any_host)({}, None, None, encoded, new_event_id())  # type: ignore[arg-type] # it passes them on
    except Forbidden:
        assert not endpoint.calls
        return False
    return endpoint.calls == 1


@pytest.mark.parametrize("host", HERE)
async def test_names_of_this_machine_are_let_in(host: str) -> None:
    assert await let_in(host=host)
    assert await let_in(host=host, origin=f"http://{host}")
    assert await let_in(host="127.0.0.1:8080", origin=f"https://{host}"), "a page of this machine, too"


@pytest.mark.parametrize("host", ELSEWHERE)
async def test_other_names_are_not(host: str) -> None:
    """A name of somebody else's that leads here is how their page would get in."""
    assert not await let_in(host=host)
    assert not await let_in(host="localhost:8080", origin=f"http://{host}")


async def test_a_page_of_nobody_is_let_in_nowhere() -> None:
    """Of a file, or of a frame that a page has made."""
    for host in ("localhost", "gateway.example"):
        assert not await let_in(host=host, origin="null", any_host=host != "localhost")
    assert await let_in(), "who says nothing of both is no browser"


async def test_under_any_name_a_page_must_be_of_that_name() -> None:
    assert await let_in(any_host=True, host="gateway.example:8080")
    assert await let_in(any_host=True, host="gateway.example:8080", origin="http://Gateway.example:8080")
    for origin in ("http://evil.example", "http://gateway.example", "http://localhost:8080"):
        assert not await let_in(any_host=True, host="gateway.example:8080", origin=origin)
    assert not await let_in(any_host=True, origin="http://evil.example")


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "gateway.example"])  # noqa: S104 - to be refused
def test_where_others_come_in_it_does_not_start(host: str, tmp_path: Path) -> None:
    config = tmp_path / "penstock.yaml"
    with pytest.raises(ConfigError, match=rf"others reach {host}: listen on 127\.0\.0\.1, or set auth to keys"):
        require_loopback(load_settings(config=config, host=host, auth="none"))
    require_loopback(load_settings(config=config, host=host, auth="NONE", auth_none_anywhere=True))
    require_loopback(load_settings(config=config, host=host))


def test_with_keys_nothing_is_put_before_an_endpoint(tmp_path: Path) -> None:
    config = tmp_path / "penstock.yaml"
    assert guard_of(load_settings(config=config)) is None
    assert guard_of(load_settings(config=config, auth="none")) is not None
