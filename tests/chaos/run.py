"""One run, from the seed to the verdict: world, load, faults, rest, facts, checks."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tests.chaos.calm import calmed
from tests.chaos.check_events import check_events, lost_or_doubled
from tests.chaos.check_limits import capacities_per_loss, check_limits, over_the_limit
from tests.chaos.check_places import check_places
from tests.chaos.check_rest import check_rest
from tests.chaos.check_tokens import check_tokens, inexact, served_by_marker, unbilled_s
from tests.chaos.clients import Client
from tests.chaos.conductor import Conductor
from tests.chaos.evidence import fresh_folder, told, write_evidence
from tests.chaos.facts import Facts, gathered
from tests.chaos.findings import Finding, cases_of
from tests.chaos.plan import plan
from tests.chaos.world import World, running_world
from tests.support.command import Penstock
from tests.support.guarantees import measured
from tests.support.waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.chaos.attempts import Attempt
    from tests.chaos.happened import Happened
    from tests.chaos.plan import Fault, Form

CLIENT_END_S_MAX = 60.0
MEASURED = {
    "requests-over-limit-chaos": "requests over a limit",
    "redis-lost": "capacities more per loss of Redis",
    "ledger-events": "lost or doubled events",
    "ledger-tokens-chaos": "inexact tokens",
    "ledger-estimates": "seconds of generation that a killed stream is not billed",
}
"""Which figure is of which promise."""


@dataclass
class Verdict:
    """What came out: what must not be, the figures that were measured, and where the evidence lies."""

    seed: int
    folder: Path
    findings: list[Finding] = field(default_factory=list)
    figures: dict[str, float] = field(default_factory=dict)

    def __str__(self) -> str:
        figures = ", ".join(f"{name} {value:g}" for name, value in self.figures.items())
        return told(self.folder, self.seed, self.findings) if self.findings else f"seed {self.seed}: {figures}"


def run(seed: int, form: Form, say: Callable[[str], None], name: str) -> Verdict:
    """Run one plan to its end and judge it. Evidence stays below `build/chaos`, in a folder of this name."""
    folder = fresh_folder(name)
    faults = plan(seed, form)
    say(f"chaos: --seed {seed}, {len(faults)} faults in {form.load_s:.0f} s, evidence in {folder}")
    verdict = Verdict(seed, folder)
    facts: Facts | None = None
    try:
        with running_world(folder, form) as world:
            verdict.findings += verified(world)  # from here on the engines' counters are compared with the ledger
            attempts, happened = _loaded(world, form, faults, seed, say)
            say("the load has ended; waiting for rest")
            verdict.findings += calmed(world)
            verdict.findings += verified(world)
            verdict.findings += _ended(world)
            facts = gathered(world, attempts, happened)
        verdict.findings += judged(facts)
        verdict.figures = figures_of(facts)
        verdict.findings += promised(verdict.figures, f"{form.load_s / 60:.2g} min, {form.kills} kills, seed {seed}")
    except BaseException as error:
        verdict.findings.append(Finding("run", f"{type(error).__name__}: {error}"))
        raise
    finally:
        write_evidence(folder, faults, facts, verdict.findings)
        say(str(verdict))
    return verdict


def judged(facts: Facts) -> list[Finding]:
    """Return what the checks find."""
    checks = (check_events, check_tokens, check_limits, check_places, check_rest)
    return [finding for check in checks for finding in check(facts)]


def figures_of(facts: Facts) -> dict[str, float]:
    """Return what was measured, by name."""
    cases = [case for case in cases_of(facts) if case.event is not None and case.attempt is not None]
    served = served_by_marker(facts)
    reaped = [case for case in cases if case.event is not None and case.event["reaped"]]
    return {
        "requests": len(facts.attempts),
        "admitted": len(facts.opens),
        "ended with an exact count": sum(event["coverage"] == "exact" for event in facts.events),
        "reaped": len(reaped),
        "kills": len(facts.killed),
        "losses of Redis": len(facts.happened.losses),
        "lost or doubled events": lost_or_doubled(facts),
        "inexact tokens": len(list(inexact(cases, served))),
        "seconds of generation that a killed stream is not billed": max(
            (unbilled_s(case, served, facts) for case in reaped if case.opened["streamed"]), default=0.0
        ),
        "requests over a limit": over_the_limit(facts, "requests"),
        "tokens over a limit": over_the_limit(facts, "tokens"),
        "capacities more per loss of Redis": capacities_per_loss(facts),
    }


def promised(figures: dict[str, float], conditions: str) -> list[Finding]:
    """Hand in what was measured of promises; return those that were not kept."""
    found = []
    for promise_id, name in MEASURED.items():
        try:
            measured(promise_id, figures[name], conditions)
        except AssertionError as error:
            found.append(Finding("guarantees", str(error)))
    return found


def _loaded(
    world: World, form: Form, faults: list[Fault], seed: int, say: Callable[[str], None]
) -> tuple[list[Attempt], Happened]:
    """Let clients ask while faults happen. Raises what a client or a fault raised."""
    ending = threading.Event()
    clients = [Client(caller, world.replicas, seed, ending) for caller in world.tenants.callers]
    conductor = Conductor(world, ending, say)
    for client in clients:
        client.start()
    try:
        conductor.conduct(faults, form.load_s)
    finally:
        ending.set()
        for client in clients:
            client.join(CLIENT_END_S_MAX)
    for client in clients:
        assert not client.is_alive(), f"{client.name} does not end"
        if client.failure is not None:
            raise client.failure
    wait_for(lambda: all(replica.serving for replica in world.replicas), "all replicas serve", CLIENT_END_S_MAX)
    with ThreadPoolExecutor(len(clients)) as threads:
        list(threads.map(Client.ask_once_more, clients))
    return [attempt for client in clients for attempt in client.attempts], conductor.happened


def verified(world: World) -> list[Finding]:
    """Let `penstock ledger verify` look at ledger, rollups, replicas and engines; return what it finds amiss."""
    replica = world.replicas[0]
    ask = Penstock(replica.home, {"PENSTOCK_POSTGRES_DSN": world.postgres.address})
    outcome = ask("ledger", "verify", "--json", f"--config={replica.home / 'penstock.yaml'}")
    return [Finding("verify", f"exit code {outcome.code}: {outcome.err}{outcome.out}")] if outcome.code else []


def _ended(world: World) -> list[Finding]:
    """End all replicas properly; return what is wrong about how they end."""
    codes = {replica.number: replica.terminate() for replica in world.replicas}
    return [Finding("exit", f"replica {number} ended with exit code {code}") for number, code in codes.items() if code]
