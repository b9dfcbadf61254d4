"""Keys on a real Postgres: who a key is, with which limits, and everything that makes it count no longer."""

from __future__ import annotations

import datetime as dt
from dataclasses import replace
from ipaddress import ip_network
from typing import TYPE_CHECKING

import pytest

from gateway.authenticate.key import parse_key, rotated_key
from gateway.authenticate.key_store import KeyStore
from gateway.authenticate.refusals import Ended, Reason
from gateway.domain.principal import (
    TENANT_LEVELS,
    Budget,
    BudgetPeriod,
    ConcurrencyLimit,
    Level,
    Limit,
    LimitUnit,
    OutputBound,
    Principal,
)
from gateway.errors import KeyStoreUnavailable
from gateway.storage.postgres import open_pool
from gateway.units import PicoUsd
from tests.support.postgres import ask
from tests.support.tenants import NO_PEPPERS, Tenant, make_tenant

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from gateway.dev.children import RunningServer
    from gateway.storage.postgres import Pool

PATIENCE_S = 10.0


@pytest.fixture
async def pool(postgres_dsn: str) -> AsyncIterator[Pool]:
    """The data path's pool on a fresh database."""
    pool = await open_pool(postgres_dsn, pooled=False, wait_s=PATIENCE_S)
    yield pool
    await pool.close()


@pytest.fixture
def store(pool: Pool) -> KeyStore:
    """A key store."""
    return KeyStore(pool)


async def principal_of(store: KeyStore, tenant: Tenant) -> Principal:
    """Return who the tenant's key is."""
    stored = await store.find(tenant.key_public_id)
    assert stored is not None
    (secret,) = stored.secrets
    assert isinstance(secret.meaning, Principal)
    return secret.meaning


async def meanings(store: KeyStore, tenant: Tenant) -> list[Principal | Ended]:
    """Return what the secrets of the tenant's key stand for, the present one first."""
    stored = await store.find(tenant.key_public_id)
    assert stored is not None
    return [secret.meaning for secret in stored.secrets]


async def test_a_key_is_its_tenant(store: KeyStore, postgres_dsn: str) -> None:
    tenant = make_tenant(postgres_dsn, models=["b", "a"], expires_in=dt.timedelta(days=1))
    principal = await principal_of(store, tenant)
    assert (principal.organization_id, principal.organization) == (tenant.organization_id, tenant.organization)
    assert (principal.team_id, principal.team) == (tenant.team_id, tenant.team)
    assert (principal.user_id, principal.user) == (tenant.user_id, tenant.user)
    assert (principal.key_id, principal.key_public_id) == (tenant.key_id, tenant.key_public_id)
    assert principal.limits == ()
    assert principal.models_allowed == frozenset({"a", "b"})
    assert not principal.may_use("c")
    expires = await ask(postgres_dsn, "SELECT expires_at FROM api_key WHERE id = $1", tenant.key_id)
    assert principal.expires_at_s == expires.timestamp()
    stored, parsed = await store.find(tenant.key_public_id), parse_key(tenant.key)
    assert stored is not None
    assert parsed is not None
    (secret,) = stored.secrets
    assert NO_PEPPERS.matches(parsed.secret, secret.hmac, secret.pepper_version)
    assert parsed.secret not in repr(stored)
    assert repr(secret.hmac) not in repr(stored)


async def test_a_service_key_has_no_user(store: KeyStore, postgres_dsn: str) -> None:
    tenant = make_tenant(postgres_dsn)
    await ask(postgres_dsn, "UPDATE api_key SET user_id = NULL WHERE id = $1", tenant.key_id)
    await ask(postgres_dsn, "DELETE FROM membership WHERE user_id = $1", tenant.user_id)
    principal = await principal_of(store, tenant)
    assert (principal.user_id, principal.user) == (None, None)
    assert principal.models_allowed is None
    assert principal.addresses_allowed is None
    assert principal.expires_at_s is None


async def test_limits_of_all_levels_come_widest_first(store: KeyStore, postgres_dsn: str) -> None:
    tenant, other = make_tenant(postgres_dsn), make_tenant(postgres_dsn)
    for each in (tenant, other):
        each.limit(Level.KEY, requests_per_minute=5)
        each.limit(Level.USER, tokens_per_minute=4, tokens_burst=400)
        each.limit(Level.TEAM, requests_per_minute=3, tokens_per_minute=33)
        each.limit(Level.ORGANIZATION, requests_per_minute=1)
        each.limit(Level.ORGANIZATION, model="m", tokens_per_minute=2)
    principal = await principal_of(store, tenant)
    organization, team, user, key = (tenant.id_of(level) for level in TENANT_LEVELS)
    assert principal.limits == (
        Limit(Level.ORGANIZATION, organization, LimitUnit.REQUESTS, 1, 1),
        Limit(Level.ORGANIZATION, organization, LimitUnit.TOKENS, 2, 2, "m"),
        Limit(Level.TEAM, team, LimitUnit.REQUESTS, 3, 3),
        Limit(Level.TEAM, team, LimitUnit.TOKENS, 33, 33),
        Limit(Level.USER, user, LimitUnit.TOKENS, 4, 400),
        Limit(Level.KEY, key, LimitUnit.REQUESTS, 5, 5),
    )


async def test_every_kind_of_limit_is_read(store: KeyStore, postgres_dsn: str) -> None:
    tenant = make_tenant(postgres_dsn)
    largest = PicoUsd(5_000_000 * 10**12)
    tenant.limit(Level.KEY, input_tokens_per_minute=7, output_tokens_per_minute=8, output_tokens_burst=80)
    tenant.limit(Level.KEY, model="m", concurrent_requests=2, output_tokens_max=99, budget_day_pico_usd=PicoUsd(0))
    tenant.limit(
        Level.ORGANIZATION,
        budget_week_pico_usd=PicoUsd(1000),
        budget_month_pico_usd=largest,
        budget_session_pico_usd=PicoUsd(7),
        budget_stops_streams=True,
        concurrent_requests=30,
        output_tokens_max=500,
    )
    principal, organization, key = await principal_of(store, tenant), tenant.organization_id, tenant.key_id
    assert principal.limits == (
        Limit(Level.KEY, key, LimitUnit.INPUT_TOKENS, 7, 7),
        Limit(Level.KEY, key, LimitUnit.OUTPUT_TOKENS, 8, 80),
    )
    assert principal.concurrency_limits == (
        ConcurrencyLimit(Level.ORGANIZATION, organization, 30),
        ConcurrencyLimit(Level.KEY, key, 2, "m"),
    )
    assert principal.budgets == (
        Budget(Level.ORGANIZATION, organization, BudgetPeriod.WEEK, PicoUsd(1000), stops_streams=True),
        Budget(Level.ORGANIZATION, organization, BudgetPeriod.MONTH, largest, stops_streams=True),
        Budget(Level.ORGANIZATION, organization, BudgetPeriod.SESSION, PicoUsd(7), stops_streams=True),
        Budget(Level.KEY, key, BudgetPeriod.DAY, PicoUsd(0), model="m"),
    )
    assert principal.output_bounds == (OutputBound(500), OutputBound(99, "m"))


@pytest.mark.parametrize(
    ("statement", "subject", "reason"),
    [
        ("UPDATE api_key SET revoked_at = now() WHERE id = $1", "key_id", Reason.REVOKED),
        ("UPDATE api_key SET revoked_at = now(), expires_at = now() WHERE id = $1", "key_id", Reason.REVOKED),
        ("UPDATE api_key SET expires_at = now() WHERE id = $1", "key_id", Reason.EXPIRED),
        ("UPDATE organization SET deleted_at = now() WHERE id = $1", "organization_id", Reason.ORPHANED),
        ("UPDATE team SET deleted_at = now() WHERE id = $1", "team_id", Reason.ORPHANED),
        ("UPDATE app_user SET deleted_at = now() WHERE id = $1", "user_id", Reason.ORPHANED),
        ("DELETE FROM membership WHERE user_id = $1", "user_id", Reason.ORPHANED),
        ("DELETE FROM api_key WHERE id = $1", "key_id", None),
    ],
    ids=["revoked", "revoked, too", "expired", "organization", "team", "user", "left the team", "deleted"],
)
async def test_what_no_longer_counts_says_why(
    store: KeyStore, postgres_dsn: str, statement: str, subject: str, reason: Reason | None
) -> None:
    tenant, other = make_tenant(postgres_dsn), make_tenant(postgres_dsn)
    await ask(postgres_dsn, statement, getattr(tenant, subject))
    if reason is None:
        assert await store.find(tenant.key_public_id) is None
    else:
        at = await ask(
            postgres_dsn, "SELECT coalesce(revoked_at, expires_at) FROM api_key WHERE id = $1", tenant.key_id
        )
        at_s = None if reason is Reason.ORPHANED else at.timestamp()
        whose = (tenant.organization_id, tenant.key_id, tenant.key_public_id)
        assert await meanings(store, tenant) == [Ended(reason, at_s, *whose)]
    assert await principal_of(store, other)


async def test_a_rotated_key_has_two_secrets_until_the_grace_is_over(store: KeyStore, postgres_dsn: str) -> None:
    tenant = make_tenant(postgres_dsn)
    before = await principal_of(store, tenant)
    new = rotated_key(NO_PEPPERS, tenant.key_public_id)
    rotate = """
        UPDATE api_key SET previous_secret_hmac = secret_hmac, previous_pepper_version = pepper_version,
            secret_hmac = $2, previous_expires_at = now() + interval '1 hour' WHERE id = $1
        RETURNING previous_expires_at
    """
    until_s = (await ask(postgres_dsn, rotate, tenant.key_id, new.secret_hmac)).timestamp()
    stored = await store.find(tenant.key_public_id)
    assert stored is not None
    for secret, text in zip(stored.secrets, (new.text, tenant.key), strict=True):
        parsed = parse_key(text)
        assert parsed is not None
        assert NO_PEPPERS.matches(parsed.secret, secret.hmac, secret.pepper_version)
    present, previous = await meanings(store, tenant)
    assert present == before
    assert previous == replace(before, expires_at_s=until_s)
    sooner = "UPDATE api_key SET expires_at = now() + interval '1 minute' WHERE id = $1 RETURNING expires_at"
    sooner_s = (await ask(postgres_dsn, sooner, tenant.key_id)).timestamp()
    assert await meanings(store, tenant) == [replace(before, expires_at_s=sooner_s)] * 2, "whichever ends first"
    over = (
        "UPDATE api_key SET expires_at = NULL, previous_expires_at = now() WHERE id = $1 RETURNING previous_expires_at"
    )
    over_s = (await ask(postgres_dsn, over, tenant.key_id)).timestamp()
    ended = Ended(Reason.REPLACED, over_s, tenant.organization_id, tenant.key_id, tenant.key_public_id)
    assert await meanings(store, tenant) == [before, ended]
    revoked_at = await ask(
        postgres_dsn, "UPDATE api_key SET revoked_at = now() WHERE id = $1 RETURNING revoked_at", tenant.key_id
    )
    revoked = replace(ended, reason=Reason.REVOKED, at_s=revoked_at.timestamp())
    assert await meanings(store, tenant) == [revoked, revoked], "a leak of either is told of"


async def test_addresses_are_networks_as_they_are_compared(store: KeyStore, postgres_dsn: str) -> None:
    tenant = make_tenant(postgres_dsn)
    hold = "UPDATE api_key SET addresses_allowed = $2::text[]::cidr[] WHERE id = $1"
    given = ["10.0.0.0/8", "2001:db8::/32", "::ffff:192.0.2.0/120"]
    await ask(postgres_dsn, hold, tenant.key_id, given)
    allowed = (await principal_of(store, tenant)).addresses_allowed
    assert allowed == (ip_network("10.0.0.0/8"), ip_network("2001:db8::/32"), ip_network("192.0.2.0/24"))
    await ask(postgres_dsn, hold, tenant.key_id, [])
    assert (await principal_of(store, tenant)).addresses_allowed == (), "nothing is not anything"


@pytest.mark.parametrize("public_id", ["", "x" * 16, "' OR true --", "\N{SNOWMAN}"])
async def test_an_id_that_nobody_has_is_not_found(store: KeyStore, postgres_dsn: str, public_id: str) -> None:
    make_tenant(postgres_dsn)
    assert await store.find(public_id) is None


async def test_a_user_of_another_team_of_the_organization_does_not_count(store: KeyStore, postgres_dsn: str) -> None:
    tenant = make_tenant(postgres_dsn)
    insert = "INSERT INTO team (organization_id, name) VALUES ($1, 'other') RETURNING id"
    team = await ask(postgres_dsn, insert, tenant.organization_id)
    await ask(postgres_dsn, "UPDATE membership SET team_id = $1 WHERE user_id = $2", team, tenant.user_id)
    (ended,) = await meanings(store, tenant)
    assert isinstance(ended, Ended)
    assert ended.reason is Reason.ORPHANED


async def test_a_postgres_that_is_gone_is_no_statement_about_a_key(own_postgres: RunningServer) -> None:
    tenant: Tenant = make_tenant(own_postgres.address)
    pool = await open_pool(own_postgres.address, pooled=False, wait_s=PATIENCE_S)
    store = KeyStore(pool)
    assert await store.find(tenant.key_public_id) is not None
    own_postgres.child.stop()
    for _ in range(2):
        with pytest.raises(KeyStoreUnavailable):
            await store.find(tenant.key_public_id)
    pool.terminate()
