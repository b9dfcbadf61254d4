"""The provider changes its keys, is flooded with unknown ones, and goes away."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from gateway.admin.sign_in.provider import (
    FRESH_S,
    RETRY_INTERVAL_S,
    STALE_S_MAX,
    UNKNOWN_KEY_INTERVAL_S,
    Provider,
)
from gateway.admin.sign_in.refusals import ProviderUnavailable
from tests.support.oidc import OidcServer
from tests.support.sign_in import serving_sign_in

if TYPE_CHECKING:
    from pathlib import Path


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now_s = 1_000.0

    def __call__(self) -> float:
        return self.now_s


async def test_changed_keys_are_taken_at_once_and_a_flood_of_unknown_ones_asks_rarely(oidc: OidcServer) -> None:
    clock = Clock()
    provider = Provider(oidc.issuer, clock)
    before = oidc.asked()["/jwks"]
    old = str(oidc.key.kid)
    assert len(await provider.keys(old)) == 1
    oidc.rotate()
    assert len(await provider.keys(str(oidc.key.kid))) == 1
    assert oidc.asked()["/jwks"] == before + 2
    assert await provider.keys(old) == ()  # what is taken out of the set counts no more
    for number in range(500):
        assert await provider.keys(f"flood-{number}") == ()
    assert oidc.asked()["/jwks"] == before + 2
    clock.now_s += UNKNOWN_KEY_INTERVAL_S
    for number in range(500):
        assert await provider.keys(f"flood-{number}") == ()
    assert oidc.asked()["/jwks"] == before + 3
    assert len(await provider.keys(None)) == 1
    clock.now_s += FRESH_S
    assert len(await provider.keys(str(oidc.key.kid))) == 1
    assert oidc.asked()["/jwks"] == before + 4


async def test_while_the_provider_is_away_what_is_known_goes_on_for_a_day(tmp_path: Path) -> None:
    clock = Clock()
    with OidcServer(tmp_path, {}) as oidc:
        provider = Provider(oidc.issuer, clock)
        kid = str(oidc.key.kid)
        assert len(await provider.keys(kid)) == 1
        oidc.stop()
        clock.now_s += FRESH_S
        assert len(await provider.keys(kid)) == 1
        assert await provider.keys("unknown") == ()
        clock.now_s += STALE_S_MAX - FRESH_S
        with pytest.raises(ProviderUnavailable):
            await provider.keys(kid)
        oidc.start()
        with pytest.raises(ProviderUnavailable):  # it is not asked with every request that comes
            await provider.keys(kid)
        clock.now_s += RETRY_INTERVAL_S
        assert len(await provider.keys(kid)) == 1


async def test_without_the_provider_nobody_new_signs_in_and_who_has_goes_on(postgres_dsn: str, tmp_path: Path) -> None:
    with OidcServer(tmp_path, {}) as oidc:
        async with serving_sign_in(postgres_dsn, oidc) as api:
            config = (await api.client.get("/auth/config")).json()["oidc"]
            assert config["device_authorization_endpoint"] == f"{oidc.issuer}/device/auth"
            token = oidc.signed("alice", preferred_username="alice", groups=["ml"])
            session = await api.session(token)
            oidc.stop()
            assert (await api.get("/admin/v1/teams", session["credential"])).status_code == 200
            assert (await api.exchange(token)).status_code == 200  # its keys are known
            api.sign_in.provider = Provider(oidc.issuer)  # as after a restart
            answer = await api.exchange(token)
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "2")
            assert answer.json()["code"] == "identity_provider_unavailable"
            assert (await api.get("/admin/v1/teams", session["credential"])).status_code == 200
            assert (await api.get("/admin/v1/teams", token)).status_code == 503
            config = (await api.client.get("/auth/config")).json()["oidc"]
            assert (config["issuer"], config["token_endpoint"]) == (oidc.issuer, None)


async def test_a_provider_that_calls_itself_otherwise_is_not_believed(oidc: OidcServer) -> None:
    provider = Provider(oidc.issuer.replace("127.0.0.1", "localhost"))
    with pytest.raises(ProviderUnavailable):
        await provider.metadata()
