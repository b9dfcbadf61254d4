"""The device flow of `penstock login` against the real provider, where waiting is what a test says."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import httpx2
import pytest

from gateway.cli import login_flows
from gateway.cli.connection import Connection
from gateway.cli.login_flows import POLL_FAILURES_MAX, SLOW_DOWN_S, Provider, by_device
from gateway.errors import ConfigError, GatewayError, Unavailable
from tests.support.login import OPEN
from tests.support.oidc import CLIENT, OidcServer, Person

if TYPE_CHECKING:
    from collections.abc import Callable


def provider_at(oidc: OidcServer, **told: Any) -> Provider:
    """Return what a gateway would tell of this provider."""
    found = httpx2.get(f"{oidc.issuer}/.well-known/openid-configuration", trust_env=False).json()
    names = ("issuer", "authorization_endpoint", "token_endpoint", "device_authorization_endpoint")
    return Provider(**{"client_id": CLIENT, "scopes": "openid groups"} | {name: found[name] for name in names} | told)


class Waits:
    """Waits for nothing: notes how long it was to wait, and does what is planned for that time."""

    def __init__(self, *plans: Callable[[], object]) -> None:
        self.waited_s: list[float] = []
        self.said: list[str] = []
        self._plans = list(plans)

    def __call__(self, seconds: float) -> None:
        self.waited_s.append(seconds)
        if self._plans:
            self._plans.pop(0)()

    def visit(self, account: str, *, refuse: bool = False) -> None:
        """Be the person, at the address that was told."""
        found = OPEN.search("\n".join(self.said))
        assert found is not None, self.said
        Person(account, refuses=refuse).visit(found[1])


def test_it_asks_as_often_as_it_may_and_slower_when_told_so(oidc: OidcServer) -> None:
    oidc.set_account("slow", groups=["ml"])
    oidc.slow_down(2)
    waits = Waits(lambda: None, lambda: None, lambda: None, lambda: waits.visit("slow"))
    with Connection() as connection:
        proof = by_device(provider_at(oidc), connection, waits.said.append, waits)
    assert proof.id_token.count(".") == 2
    assert proof.nonce is None
    assert waits.waited_s == [1.0, 1.0 + SLOW_DOWN_S, 1.0 + 2 * SLOW_DOWN_S, 1.0 + 2 * SLOW_DOWN_S]


def test_it_bears_a_provider_that_is_away_for_a_while_and_not_for_ever(oidc: OidcServer) -> None:
    waits = Waits()
    away = provider_at(oidc, token_endpoint="http://127.0.0.1:9/token")
    with Connection() as connection, pytest.raises(Unavailable, match=r"cannot reach 127\.0\.0\.1:9"):
        by_device(away, connection, waits.said.append, waits)
    assert waits.waited_s == [2.0**number for number in range(POLL_FAILURES_MAX)]


def test_a_code_that_nobody_enters_lapses(oidc: OidcServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(login_flows, "LOGIN_WAIT_S_MAX", 0.5)
    waits = Waits()
    with Connection() as connection, pytest.raises(GatewayError, match="nobody has entered the code in time"):
        by_device(provider_at(oidc), connection, waits.said.append, waits)


def test_a_refusal_is_told_in_the_words_of_the_provider(oidc: OidcServer) -> None:
    oidc.set_account("reluctant", groups=["ml"])
    unknown, waits = provider_at(oidc, client_id="unknown"), Waits(lambda: waits.visit("reluctant", refuse=True))
    with Connection() as connection:
        with pytest.raises(GatewayError, match="the login was refused: invalid_client"):
            by_device(unknown, connection, waits.said.append, waits)
        with pytest.raises(GatewayError, match="the login was refused: access_denied"):
            by_device(provider_at(oidc), connection, waits.said.append, waits)


def test_no_login_goes_out_in_the_clear(oidc: OidcServer) -> None:
    elsewhere = provider_at(oidc, device_authorization_endpoint="http://id.example/device")
    waits = Waits()
    with Connection() as connection, pytest.raises(ConfigError, match="is not encrypted"):
        by_device(elsewhere, connection, waits.said.append, waits)
