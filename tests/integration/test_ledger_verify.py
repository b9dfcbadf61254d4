"""`penstock ledger verify` on a running stack: silent while traffic flows, and loud for every kind of tampering."""

from __future__ import annotations

import json
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.billing import execute, rows
from tests.support.chat import chat
from tests.support.command import Penstock
from tests.support.engine import EngineProcess
from tests.support.stack import Stack, running_stack
from tests.support.waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gateway.dev.servers import ServerAddresses
    from tests.support.command import Outcome
    from tests.support.servers import Databases

PACED = {"ttft_ms": 20, "tokens_per_second": 400}


@pytest.fixture(scope="module")
def stack(databases: Databases, servers: ServerAddresses, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Two replicas and two engines, as different as engines are in what they count."""
    engines = [EngineProcess("sim", **PACED), EngineProcess("sim", kind="llamacpp", **PACED)]
    folder = tmp_path_factory.mktemp("verify")
    with engines[1] as cached_apart:
        pools = {"other": {"engine": "llamacpp", "endpoints": [cached_apart.url]}}
        models = {
            name: {"pool": pool, "upstream": "sim", "price": {"input": "1", "output": "2"}}
            for name, pool in (("sim", "gpu"), ("apart", "other"))
        }
        config = {"pools": pools, "models": models}
        with running_stack(
            databases, servers, folder, replicas=2, engines=engines[:1], config=config, checkpoint_interval_s=0.5
        ) as running:
            yield Stack(running.dsn, running.redis_url, running.gateways, engines)


class Auditor:
    """Runs the command as an operator would."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        folder = stack.gateway.config.parent
        self._penstock = Penstock(folder, {"PENSTOCK_POSTGRES_DSN": stack.dsn})

    def __call__(self, *options: str) -> Outcome:
        """Verify with these options."""
        return self._penstock("ledger", "verify", "--config", str(self.stack.gateway.config), *options)

    def document(self, *options: str, wait_s: float = 15.0) -> dict[str, Any]:
        """Verify, and return what it says whether accounts agree or not."""
        done = self(*options, "--json", f"--wait={wait_s}")
        assert done.err == ""
        found: dict[str, Any] = json.loads(done.out)
        assert done.code == (0 if found["agrees"] else 1)
        return found

    def drifts(self) -> set[tuple[str, str]]:
        """Return check and unit of everything that drifts."""
        return {(drift["check"], drift["what"]) for drift in self.document(wait_s=0)["drifts"]}


def ask(stack: Stack, key: str, number: int) -> None:
    """Send one request, of one kind or another, to one replica or the other."""
    client = stack.gateways[number % 2].http(key)
    body = chat(f"say something of {number % 7}", model=("sim", "apart")[number // 2 % 2], max_tokens=20)
    if number % 5 == 4:
        with client.stream("/v1/chat/completions", {**body, "stream": True, "max_tokens": 400}) as answer:
            next(answer.lines())  # and hang up
    elif number % 3:
        assert client.post("/v1/chat/completions", body).status == 200
    else:
        with client.stream("/v1/chat/completions", {**body, "stream": True}) as answer:
            for _ in answer.lines():
                pass


@contextmanager
def traffic(stack: Stack, key: str) -> Iterator[None]:
    """Have requests in flight at all times in the body."""
    over = threading.Event()
    failures: list[BaseException] = []

    def run(lane: int) -> None:
        number = lane
        try:
            while not over.is_set():
                ask(stack, key, number)
                number += 4
        except BaseException as error:
            failures.append(error)

    lanes = [threading.Thread(target=run, args=(lane,)) for lane in range(4)]
    for each in lanes:
        each.start()
    try:
        yield
    finally:
        over.set()
        for each in lanes:
            each.join()
    assert failures == []


@pytest.fixture(scope="module")
def auditor(stack: Stack) -> Auditor:
    """The command, after its first reading of the engines and some traffic that is over."""
    audit = Auditor(stack)
    first = audit.document()
    assert first["agrees"], first
    assert {one["reason"] for one in first["not_compared"]} == {"read for the first time: compared from now on"}
    key = stack.tenant().key
    for number in range(20):
        ask(stack, key, number)
    return audit


def event_id(stack: Stack) -> str:
    """Return an event that some engine has worked for."""
    wait_for(lambda: rows(stack.dsn, "SELECT FROM usage_event WHERE coverage = 'exact'"), "an event is closed")
    found = rows(
        stack.dsn,
        "SELECT event_id FROM usage_event WHERE coverage = 'exact' AND cached_tokens = 0 ORDER BY ingested_at LIMIT 1",
    )
    return str(found[0]["event_id"])


def test_a_healthy_stack_agrees_with_traffic_in_flight(auditor: Auditor, stack: Stack) -> None:
    with traffic(stack, stack.tenant().key):
        for _ in range(2):
            found = auditor.document()
            assert found["agrees"], found
            assert (found["compared"]["replicas"], found["compared"]["engines"]) == (2, 2)
    done = auditor()
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith("all that was compared agrees: ")


def test_an_end_that_was_deleted_is_missed(auditor: Auditor, stack: Stack) -> None:
    event = event_id(stack)
    execute(stack.dsn, "CREATE TABLE aside AS SELECT * FROM usage_event WHERE event_id = $1::text::uuid", event)
    execute(stack.dsn, "DELETE FROM usage_event WHERE event_id = $1::text::uuid", event)
    execute(
        stack.dsn,
        "UPDATE usage_open SET deadline_at = deadline_at - interval '1 day' WHERE event_id = $1::text::uuid",
        event,
    )
    try:
        found = auditor.drifts()
    finally:
        execute(stack.dsn, "INSERT INTO usage_event SELECT * FROM aside")
    assert {("closes", "openings without an end"), ("replicas", "requests"), ("replicas", "prompt tokens")} <= found
    assert ("rollups", "requests") in found
    assert auditor.document()["agrees"]


def test_tokens_that_were_doubled_are_found_and_named(auditor: Auditor, stack: Stack) -> None:
    change = "UPDATE usage_event SET prompt_tokens = prompt_tokens {} 1000000 WHERE event_id = $1::text::uuid"
    event = event_id(stack)
    execute(stack.dsn, change.format("+"), event)
    try:
        done = auditor("--wait=0")
        found = auditor.document(wait_s=0)["drifts"]
    finally:
        execute(stack.dsn, change.format("-"), event)
    assert done.code == 1
    assert "do not agree, of " in done.out
    assert "-1,000,000" in done.out
    by_check = {(drift["check"], drift["what"]): drift for drift in found}
    for check in ("replicas", "rollups", "engines"):
        (drift,) = (by_check[key] for key in by_check if key[0] == check and key[1] != "cached tokens")
        assert "tokens" in drift["what"]
        assert drift["difference"] == pytest.approx(-1_000_000, abs=20_000)


def test_a_rollup_that_was_changed_is_found_by_its_hour_and_day(auditor: Auditor, stack: Stack) -> None:
    for table, name in (("usage_hour", "hour"), ("usage_session", "sessions' hour"), ("usage_day", "day")):
        change = "UPDATE " + table + " SET cost_pico_usd = cost_pico_usd + $1::integer RETURNING 1"  # noqa: S608 - names of this test
        changed = len(rows(stack.dsn, change, 1))
        try:
            (drift,) = auditor.document(wait_s=0)["drifts"]
        finally:
            execute(stack.dsn, change, -1)
        assert (drift["check"], drift["what"], drift["difference"]) == ("rollups", "pico-USD", changed)
        assert drift["subject"].startswith(f"{name} 20")


def test_an_end_without_an_opening_and_one_twice_are_found(auditor: Auditor, stack: Stack) -> None:
    event = event_id(stack)
    execute(stack.dsn, "CREATE TABLE opening AS SELECT * FROM usage_open WHERE event_id = $1::text::uuid", event)
    execute(stack.dsn, "DELETE FROM usage_open WHERE event_id = $1::text::uuid", event)
    # A copy a moment later; the transaction is the event's own, so that it is not rolled up.
    execute(stack.dsn, "CREATE TABLE twin AS SELECT * FROM usage_event WHERE event_id = $1::text::uuid", event)
    execute(stack.dsn, "UPDATE twin SET opened_at = opened_at + interval '1 ms', attempts = 7")
    execute(stack.dsn, "INSERT INTO usage_event SELECT * FROM twin")
    try:
        found = auditor.drifts()
    finally:
        execute(stack.dsn, "DELETE FROM usage_event WHERE event_id = $1::text::uuid AND attempts = 7", event)
        execute(stack.dsn, "INSERT INTO usage_open SELECT * FROM opening")
    assert {("closes", "ends without an opening"), ("closes", "events with two ends")} <= found


def test_an_engine_that_counts_more_than_was_billed_is_named(auditor: Auditor, stack: Stack) -> None:
    assert auditor.document("--new-baseline")["agrees"]
    for engine in stack.engines:
        body = json.dumps(chat("not through the gateway " * 50, max_tokens=300)).encode()
        engine.ask("POST", "/v1/chat/completions", body)
    drifts = auditor.document(wait_s=0)["drifts"]
    assert {drift["subject"] for drift in drifts} == {engine.url for engine in stack.engines}
    assert {drift["what"] for drift in drifts} == {"prompt tokens", "computed tokens", "completion tokens"}
    assert all(drift["difference"] > 0 for drift in drifts)
    assert auditor.document("--new-baseline")["agrees"]
    assert auditor.document()["agrees"]


def test_an_engine_that_restarts_or_is_away_is_not_compared(auditor: Auditor, stack: Stack) -> None:
    engine = stack.engines[1]
    engine.kill()
    found = auditor.document()
    assert found["agrees"]
    assert [one["subject"] for one in found["not_compared"]] == [engine.url]
    assert auditor("--strict").code == 1
    engine.start()
    found = auditor.document()
    assert [one["reason"] for one in found["not_compared"]] == ["restarted: compared from now on"]
    key = stack.tenant().key
    for number in range(2, 9):
        ask(stack, key, number)
    assert auditor("--strict").code == 0


def test_a_replica_that_is_gone_is_held_to_its_last_word(auditor: Auditor, stack: Stack) -> None:
    execute(
        stack.dsn,
        "WITH gone AS (INSERT INTO replica (boot_id, hostname, started_at, heartbeat_at) VALUES (gen_random_uuid(),"
        " 'gone', now() - interval '1 hour', now() - interval '1 hour') RETURNING boot_id)"
        " INSERT INTO replica_checkpoint (boot_id, live, counters) SELECT boot_id, '{}', $1::text::jsonb FROM gone",
        '{"opened": 2, "closed": 2, "prompt": 9, "cached": 0, "completion": 1, "reasoning": 0, "cost_pico_usd": 7}',
    )
    try:
        drifts = auditor.document(wait_s=0)["drifts"]
    finally:
        execute(stack.dsn, "DELETE FROM replica WHERE hostname = 'gone'")
    assert {(drift["what"], drift["other"], drift["ledger"]) for drift in drifts} == {
        ("requests", 2, 0), ("prompt tokens", 9, 0), ("completion tokens", 1, 0), ("pico-USD", 7, 0)
    }  # fmt: skip
    assert all(drift["subject"].startswith("gone ") for drift in drifts)
