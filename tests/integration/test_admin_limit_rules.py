"""Rules of limits on a real Postgres: every value by itself is kept, changed and taken away, by service and by HTTP."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from gateway.admin.database import transaction_on
from gateway.admin.limit_values import REMOVED, LimitValues
from gateway.admin.limits import LimitRule, Subject, list_limits, set_limit
from gateway.admin.organizations import create_organization
from gateway.admin.scope import PLATFORM
from gateway.domain.principal import Level
from gateway.errors import InvalidRequest
from gateway.units import PicoUsd
from tests.support.admin_api import Api, serving

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from gateway.admin.limit_values import Count

ACME = Subject(Level.ORGANIZATION, "acme")
NOTHING_SAID = {"requests_per_minute": None, "budget_day_usd": None, "budget_week_usd": None}


@pytest.fixture
async def api(postgres_dsn: str) -> AsyncIterator[Api]:
    async with serving(postgres_dsn) as running:
        await running.post("organizations", name="acme")
        yield running


@pytest.fixture
async def acme(postgres_dsn: str) -> str:
    """The address of a database with one organization."""
    async with transaction_on(postgres_dsn) as db:
        await create_organization(db, PLATFORM, "acme")
    return postgres_dsn


async def changed(dsn: str, **values: Count) -> LimitRule:
    """Set values of acme and return the rule."""
    async with transaction_on(dsn) as db:
        return await set_limit(db, PLATFORM, ACME, LimitValues.of(values))


async def rules(dsn: str) -> list[LimitRule]:
    async with transaction_on(dsn) as db:
        return await list_limits(db, PLATFORM)


async def test_each_period_has_a_budget_of_its_own(acme: str) -> None:
    await changed(acme, budget_day_pico_usd=PicoUsd(2_500_000_000_000))
    rule = await changed(acme, budget_month_pico_usd=PicoUsd(1000), budget_stops_streams=True)
    assert (rule.budget_day_usd, rule.budget_week_usd, rule.budget_month_usd) == ("2.5", None, "0.000000001")
    assert rule.budget_stops_streams
    assert (await changed(acme, budget_day_pico_usd=PicoUsd(0))).budget_day_usd == "0"


async def test_one_value_is_taken_away_and_the_others_stay(acme: str) -> None:
    await changed(acme, tokens_per_minute=5, tokens_burst=50, concurrent_requests=3, output_tokens_max=7)
    rule = await changed(acme, tokens_per_minute=REMOVED)
    assert (rule.tokens_per_minute, rule.tokens_burst) == (None, None)
    assert (rule.concurrent_requests, rule.output_tokens_max) == (3, 7)
    assert await rules(acme) == [rule]


async def test_a_rule_goes_with_its_last_value(acme: str) -> None:
    await changed(acme, concurrent_requests=3)
    assert (await changed(acme, concurrent_requests=REMOVED)).concurrent_requests is None
    assert await rules(acme) == []
    await changed(acme, budget_day_pico_usd=PicoUsd(0))
    assert len(await rules(acme)) == 1, "a budget of nothing is one"
    await changed(acme, requests_per_minute=REMOVED, budget_day_pico_usd=REMOVED)
    assert await rules(acme) == []


async def test_what_stops_streams_goes_with_the_last_budget(acme: str) -> None:
    await changed(acme, budget_day_pico_usd=PicoUsd(1), budget_stops_streams=True, concurrent_requests=3)
    rule = await changed(acme, budget_day_pico_usd=REMOVED)
    assert not rule.budget_stops_streams
    assert await rules(acme) == [rule]
    with pytest.raises(InvalidRequest, match="budget_stops_streams needs a budget"):
        await changed(acme, budget_stops_streams=True)
    assert await rules(acme) == [rule]


@pytest.mark.parametrize("unit", ["requests", "tokens", "input_tokens", "output_tokens"])
async def test_a_burst_needs_the_rate_of_its_unit(acme: str, unit: str) -> None:
    with pytest.raises(InvalidRequest, match=f"{unit}_burst needs {unit}_per_minute"):
        await changed(acme, **{f"{unit}_burst": 5})
    assert await rules(acme) == []


async def test_every_value_is_set_over_http_and_null_takes_it_away(api: Api) -> None:
    values: dict[str, Any] = {
        "input_tokens_per_minute": 5,
        "input_tokens_burst": 50,
        "output_tokens_per_minute": 6,
        "output_tokens_burst": 60,
        "concurrent_requests": 7,
        "output_tokens_max": 8,
        "budget_month_usd": "12.500000001",
        "budget_session_usd": "0.25",
        "budget_stops_streams": True,
    }
    subject = {"level": "organization", "subject": "acme"}
    rule = await api.post("limits", **subject, **values)
    assert {name: rule[name] for name in values} == values
    assert {name: rule[name] for name in NOTHING_SAID} == NOTHING_SAID
    assert (await api.get("limits"))["data"] == [rule]
    left = await api.post("limits", **subject, budget_month_usd=None, input_tokens_per_minute=None)
    assert (left["budget_month_usd"], left["budget_session_usd"], left["budget_stops_streams"]) == (None, "0.25", True)
    left = await api.post("limits", **subject, budget_session_usd=None)
    assert (left["budget_session_usd"], left["budget_stops_streams"]) == (None, False)
    assert (left["input_tokens_per_minute"], left["input_tokens_burst"]) == (None, None)
    assert left["concurrent_requests"] == 7


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"budget_day_usd": 5}, "budget_day_usd is wrong: Input should be a valid string"),
        ({"budget_day_usd": "-5"}, "budget_day_usd must be a plain decimal number in USD"),
        ({"budget_day_usd": "0.0000000001"}, "budget_day_usd is finer than 0.000000001 USD"),
        ({"concurrent_requests": 0}, "concurrent_requests must be 1 to 1,000,000"),
        ({"output_tokens_max": 10_000_001}, "output_tokens_max must be 1 to 10,000,000"),
        ({"budget_stops_streams": True}, "budget_stops_streams needs a budget"),
        ({}, "say what to allow"),
    ],
)
async def test_what_cannot_be_is_told_over_http(api: Api, values: dict[str, Any], message: str) -> None:
    answer = await api.client.post("/admin/v1/limits", json={"level": "organization", "subject": "acme"} | values)
    assert answer.status_code == 400
    assert answer.json()["detail"].startswith(message)


async def test_what_is_missing_is_told_over_http(api: Api) -> None:
    answer = await api.client.post("/admin/v1/limits", json={"subject": "acme"})
    assert (answer.status_code, answer.json()["detail"], answer.json()["param"]) == (400, "level is missing", "level")


async def test_a_key_is_made_with_limits_of_one_model(api: Api) -> None:
    await api.post("teams", name="core", organization="acme")
    made = await api.post(
        "keys", team="core", limits_model="m", concurrent_requests=2, budget_day_usd="1", output_tokens_max=9
    )
    (rule,) = (await api.get("limits"))["data"]
    assert (rule["level"], rule["subject_id"], rule["model"]) == ("key", made["id"], "m")
    assert (rule["concurrent_requests"], rule["budget_day_usd"], rule["output_tokens_max"]) == (2, "1", 9)
    answer = await api.client.post("/admin/v1/keys", json={"team": "core", "limits_model": "m"})
    assert (answer.status_code, answer.json()["param"]) == (400, "limits_model")
