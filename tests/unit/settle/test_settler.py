"""The end of a request, however it ended: one record, one correction of the buckets, one count, one line in the log."""

from __future__ import annotations

import dataclasses
import datetime as dt
from typing import TYPE_CHECKING, Any, cast
from uuid import UUID, uuid4

import pytest
from structlog.testing import capture_logs

from gateway.domain.call import Call, Endpoint
from gateway.domain.config import ModelConfig, Price
from gateway.domain.principal import Principal
from gateway.domain.usage import NO_USAGE, UNSERVED, Coverage, Status, TokenUsage
from gateway.observe.metrics import Metrics
from gateway.settle import settler as settler_module
from gateway.settle.ledger import Entry, Ledger
from gateway.settle.price import EffectivePrice, PriceHistory, PriceTable
from gateway.settle.settler import MS_MAX, SMALLINT_MAX, Outcome, Settler
from gateway.units import PicoUsd, new_event_id, opened_at
from tests.support.clock import Clock

if TYPE_CHECKING:
    from gateway.settle.records import CloseRecord

BOOT_ID = uuid4()
USAGE = TokenUsage(prompt=100, cached=40, completion=11, reasoning=1)
PRICE = Price(PicoUsd(1_000), PicoUsd(100), PicoUsd(2_000), PicoUsd(3_000), PicoUsd(7))
LONG_AGO = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)
COST = 60 * 1_000 + 40 * 100 + 10 * 2_000 + 3_000 + 7
MODEL = ModelConfig(name="m", pool="p", upstream="u")
CALLER = Principal(uuid4(), "org", uuid4(), "team", uuid4(), "user", uuid4(), "publicid")


class Reservation:
    """Remembers what it was settled with."""

    def __init__(self) -> None:
        self.settled: list[tuple[TokenUsage, PicoUsd]] = []
        self.withdrawals = 0

    def settle(self, used: TokenUsage, cost: PicoUsd) -> None:
        """Take note."""
        self.settled.append((used, cost))

    def withdraw(self) -> None:
        """Take note."""
        self.withdrawals += 1


class Desk:
    """A settler with all that it stands on; nothing is written anywhere."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        Clock.put_into(settler_module, monkeypatch)
        self.metrics = Metrics()
        self.ledger = Ledger(events_max=10)
        self.priced(m=[(LONG_AGO, EffectivePrice(42, PRICE))])
        self.reservation = Reservation()

    def priced(self, **histories: list[tuple[dt.datetime, EffectivePrice]]) -> None:
        """Let these be the prices of models, by their dates."""
        nowhere: Any = None
        prices = PriceTable(nowhere, {model: PriceHistory(dated) for model, dated in histories.items()})
        self.settler = Settler(self.ledger, prices, self.metrics, BOOT_ID)

    def settle(self, **changes: Any) -> CloseRecord:
        """Open and settle a call that ended as `changes` say; return its CLOSE record."""
        request = call(stream=changes.pop("stream", True), started_s=changes.pop("started_s", 990.0))
        entry = self.settler.open(CALLER, request, 100, 50, 1_800.0, PicoUsd(9))
        self.settler.settle(CALLER, request, entry, self.reservation, outcome(**changes))
        return cast("CloseRecord", entry.closed)

    def sample(self, name: str, **labels: str) -> float:
        """Return a series."""
        return self.metrics.registry.get_sample_value(name, labels) or 0.0


def call(*, stream: bool = True, started_s: float = 990.0) -> Call:
    """Return a call that began ten seconds ago."""
    return Call(
        event_id=new_event_id(),
        endpoint=Endpoint.CHAT_COMPLETIONS,
        requested_model="alias",
        model=MODEL,
        fields={},
        body=b"a prompt",
        stream=stream,
        usage_wanted=True,
        output_max=None,
        choices=1,
        session="ses_1",
        started_s=started_s,
    )


def outcome(**changes: Any) -> Outcome:
    """Return how a call ended: well, unless `changes` say otherwise."""
    ended: dict[str, Any] = {
        "status": Status.OK,
        "usage": USAGE,
        "http_status": 200,
        "error_code": None,
        "attempts": 1,
        "engine": "http://engine",
        "served_model": "m",
        "first_token_s": 992.5,
        "last_token_s": 997.5,
    }
    return Outcome(**(ended | changes))


@pytest.fixture
def desk(monkeypatch: pytest.MonkeyPatch) -> Desk:
    """A settler whose clock stands still."""
    return Desk(monkeypatch)


def test_a_request_is_opened_with_its_estimate(desk: Desk) -> None:
    request = call()
    entry: Entry = desk.settler.open(CALLER, request, 100, 50, 1_800.0, PicoUsd(9))
    record = entry.opened
    assert (record.event_id, record.opened_at) == (request.event_id, opened_at(request.event_id))
    assert record.deadline_at - record.opened_at == dt.timedelta(minutes=30)
    assert (record.estimate_prompt_tokens, record.estimate_completion_tokens) == (100, 50)
    assert (record.endpoint, record.streamed, record.estimate_cost_pico_usd) == ("chat.completions", True, 9)
    assert (record.boot_id, record.key_id, record.model) == (BOOT_ID, CALLER.key_id, "m")


def test_a_request_that_ended_well_is_billed_to_the_last_pico_usd(desk: Desk) -> None:
    record = desk.settle()
    assert (record.cost_pico_usd, record.price_id, record.status, record.coverage) == (COST, 42, "ok", "exact")
    assert (record.ttft_ms, record.duration_ms, record.session) == (2_500, 10_000, "ses_1")
    assert desk.reservation.settled == [(USAGE, COST)]


@pytest.mark.parametrize(
    ("changes", "amount"),
    [
        ({"status": Status.CLIENT_CLOSED}, COST),
        ({"status": Status.INTERRUPTED}, COST),
        ({"status": Status.UPSTREAM_ERROR}, COST),
        ({"status": Status.UPSTREAM_ERROR, "usage": NO_USAGE}, 0),
        ({"status": Status.CLIENT_CLOSED, "usage": NO_USAGE}, 0),
        ({"status": Status.OK, "usage": NO_USAGE}, 7),
        ({"status": Status.OK, "engine": None, "served_model": None}, 0),
        ({"served_model": "free"}, 0),
    ],
    ids=["hung up", "interrupted", "failed late", "failed early", "hung up early", "zero", "no engine", "no price"],
)
def test_what_was_delivered_is_billed_and_what_was_not_is_free(
    desk: Desk, changes: dict[str, Any], amount: int
) -> None:
    record = desk.settle(**changes)
    assert record.cost_pico_usd == amount
    assert len(desk.reservation.settled) == 1


def test_counting_tokens_costs_nothing_also_where_requests_have_a_price(desk: Desk) -> None:
    request = dataclasses.replace(call(), endpoint=Endpoint.COUNT_TOKENS)
    entry = desk.settler.open(CALLER, request, 100, 50, 1_800.0, PicoUsd(9))
    desk.settler.settle(CALLER, request, entry, desk.reservation, outcome(usage=NO_USAGE))
    assert cast("CloseRecord", entry.closed).cost_pico_usd == 0


def test_a_fallback_is_billed_at_the_price_of_what_served(desk: Desk) -> None:
    other = EffectivePrice(2, Price(*[PicoUsd(1)] * 4))
    desk.priced(m=[(LONG_AGO, EffectivePrice(1, PRICE))], other=[(LONG_AGO, other)])
    record = desk.settle(served_model="other")
    assert (record.model, record.served_model, record.price_id, record.cost_pico_usd) == ("m", "other", 2, 111)


def test_a_price_that_changes_in_mid_request_does_not_change_what_it_costs(desk: Desk) -> None:
    request = call()
    opened = opened_at(request.event_id)
    new = EffectivePrice(43, Price(*[PicoUsd(1)] * 4))
    desk.priced(m=[(LONG_AGO, EffectivePrice(42, PRICE)), (opened + dt.timedelta(microseconds=1), new)])
    entry = desk.settler.open(CALLER, request, 100, 50, 1_800.0, PicoUsd(9))
    desk.settler.settle(CALLER, request, entry, desk.reservation, outcome())
    record = cast("CloseRecord", entry.closed)
    assert (record.price_id, record.cost_pico_usd) == (42, COST)
    desk.priced(m=[(LONG_AGO, EffectivePrice(42, PRICE)), (opened, new)])
    entry = desk.settler.open(CALLER, request, 100, 50, 1_800.0, PicoUsd(9))
    desk.settler.settle(CALLER, request, entry, desk.reservation, outcome())
    record = cast("CloseRecord", entry.closed)
    assert (record.price_id, record.cost_pico_usd) == (43, 111), "a price is in force from its moment on"


def test_figures_fit_their_columns(desk: Desk) -> None:
    record = desk.settle(attempts=10**6, first_token_s=980.0, started_s=-1e12)
    assert record.attempts == SMALLINT_MAX
    assert record.duration_ms == record.ttft_ms == MS_MAX
    assert desk.settle(first_token_s=980.0).ttft_ms == 0, "never before the beginning"
    assert desk.settle(first_token_s=None, last_token_s=None).ttft_ms is None


def test_tokens_cost_and_times_are_counted(desk: Desk) -> None:
    desk.settle()
    desk.settle(stream=False)
    desk.settle(
        status=Status.CLIENT_CLOSED, usage=TokenUsage(prompt=1, coverage=Coverage.ESTIMATED), first_token_s=None
    )
    tenant = {"organization": "org", "team": "team", "model": "m"}
    tokens = {
        kind: desk.sample("penstock_tokens_total", **tenant, kind=kind)
        for kind in ("prompt", "cached", "completion", "reasoning")
    }
    assert tokens == {"prompt": 201, "cached": 80, "completion": 22, "reasoning": 2}
    assert desk.sample("penstock_cost_usd_total", **tenant) == pytest.approx((2 * COST + 1_007) / 10**12)
    ends = {"endpoint": "chat.completions"} | tenant
    assert desk.sample("penstock_requests_total", **ends, status="ok") == 2
    assert desk.sample("penstock_requests_total", **ends, status="client_closed") == 1
    assert desk.sample("penstock_time_to_first_token_seconds_sum", model="m") == 2.5, "of streams alone"
    assert desk.sample("penstock_time_per_output_token_seconds_sum", model="m") == 0.5
    assert desk.sample("penstock_request_duration_seconds_count", model="m", endpoint="chat.completions") == 3


def test_one_line_tells_of_a_request_without_its_words(desk: Desk) -> None:
    with capture_logs() as lines:
        record = desk.settle(status=Status.UPSTREAM_ERROR, http_status=502, error_code="upstream_error", attempts=2)
    (line,) = lines
    assert line["event"] == "request"
    assert UUID(line["request_id"]) == record.event_id
    told = {
        name: line[name] for name in ("organization", "team", "user", "key", "model", "status", "error", "attempts")
    }
    assert told == {
        "organization": "org",
        "team": "team",
        "user": "user",
        "key": "publicid",
        "model": "m",
        "status": "upstream_error",
        "error": "upstream_error",
        "attempts": 2,
    }
    assert "a prompt" not in str(line)


def test_who_was_refused_after_admission_gives_everything_back_and_pays_nothing(desk: Desk) -> None:
    closed = desk.settle(status=Status.INTERRUPTED, usage=UNSERVED, http_status=503, withdrawn=True)
    assert (desk.reservation.withdrawals, desk.reservation.settled) == (1, [])
    assert (closed.prompt_tokens, closed.completion_tokens, closed.cost_pico_usd) == (0, 0, 0)
    assert (closed.status, closed.coverage) == ("interrupted", "estimated"), "an engine may have begun"
