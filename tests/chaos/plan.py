"""What fails when: a pure function of the seed and the form of the run, so that a failing run can be had again."""

from __future__ import annotations

import random
from dataclasses import dataclass
from enum import StrEnum

WARM_S = 3.0
"""Before the first fault, so that keys are cached and every bucket was used."""
COOL_S = 6.0
"""After the last one, before the load ends."""
KILLS_PER_S_MAX = 0.25
"""A replica takes a few seconds to start; beyond this rate there would be none to kill."""
LATE_SHARE_MAX = 0.4
"""How far into its slot a fault may begin."""
PAUSE_S = (0.5, 4.0)
DELAY_S = 0.02
"""How late each piece of bytes is while a connection is slow: two of them are most of what Redis may take."""


class Kind(StrEnum):
    """What can happen."""

    KILL = "kill -9 of a replica"
    REDIS_FLUSH = "Redis loses its data"
    REDIS_RESTART = "Redis is killed and comes back empty"
    REDIS_PAUSE = "Redis is paused"
    REDIS_CUT = "one replica's connections to Redis are cut"
    REDIS_SLOW = "one replica's connections to Redis are slow"
    REDIS_MUTE = "one replica's connections to Redis carry nothing"
    POSTGRES_STOP = "Postgres is stopped"
    POSTGRES_PAUSE = "Postgres is paused"
    POSTGRES_CUT = "one replica's connections to Postgres are cut"
    ENGINE_CUT = "the connections to an engine are cut"
    ENGINE_SLOW = "the connections to an engine are slow"


@dataclass(frozen=True)
class Fault:
    """One thing that happens, `at_s` seconds after the load began, for `lasts_s`. `target` is a replica's or an
    engine's number; 0 where there is only one."""

    at_s: float
    kind: Kind
    target: int = 0
    lasts_s: float = 0.0

    def __str__(self) -> str:
        return f"{self.at_s:7.1f} s  {self.kind} (number {self.target}, for {self.lasts_s:.1f} s)"


@dataclass(frozen=True)
class Form:
    """How much of everything. `load_s` is how long the load lasts."""

    load_s: float = 125.0
    kills: int = 21
    postgres_stops: int = 1
    postgres_stop_s: float = 15.0
    rounds: int = 1
    """How often each of the other faults comes."""
    replicas: int = 3
    engines: int = 3
    clients: int = 24

    def __post_init__(self) -> None:
        if self.kills > (self.load_s - WARM_S - COOL_S) * KILLS_PER_S_MAX:
            raise ValueError(f"{self.kills} kills do not fit into {self.load_s:.0f} s: a replica has to start first")


CI = Form()


def form_of(minutes: float, kills: int) -> Form:
    """Return the long form: Postgres is away for a minute, and each other fault comes about every two minutes."""
    load_s = minutes * 60
    if load_s < 2 * CI.load_s:
        return Form(load_s=load_s, kills=kills)
    rounds = max(round(minutes / 2), 1)
    return Form(load_s, kills, postgres_stops=max(round(minutes / 10), 1), postgres_stop_s=60.0, rounds=rounds)


def plan(seed: int, form: Form) -> list[Fault]:
    """Return the faults of a run, in order of time. Faults of one server never overlap; kills come at any time."""
    rng = random.Random(f"chaos {seed}")  # noqa: S311 - the same again for the same seed
    redis = (Kind.REDIS_FLUSH, Kind.REDIS_RESTART, Kind.REDIS_PAUSE, Kind.REDIS_CUT, Kind.REDIS_SLOW, Kind.REDIS_MUTE)
    engine = (Kind.ENGINE_CUT, Kind.ENGINE_SLOW)
    postgres = [Kind.POSTGRES_STOP] * form.postgres_stops + [Kind.POSTGRES_CUT, Kind.POSTGRES_PAUSE] * form.rounds
    lanes = [
        _kills(rng, form),
        _lane(rng, form, list(redis) * form.rounds, form.replicas),
        _lane(rng, form, list(engine) * form.rounds, form.engines),
        _lane(rng, form, postgres, form.replicas),
    ]
    return sorted((fault for lane in lanes for fault in lane), key=lambda fault: fault.at_s)


def _kills(rng: random.Random, form: Form) -> list[Fault]:
    """Spread the kills over the run; each replica has its turn before any has its next, in an order of chance."""
    slot_s = (form.load_s - WARM_S - COOL_S) / max(form.kills, 1)
    turn: list[int] = []
    found = []
    for number in range(form.kills):
        turn = turn or rng.sample(range(form.replicas), form.replicas)
        found.append(Fault(WARM_S + slot_s * (number + LATE_SHARE_MAX * rng.random()), Kind.KILL, turn.pop()))
    return found


def _lane(rng: random.Random, form: Form, kinds: list[Kind], targets: int) -> list[Fault]:
    """Put faults one after the other into slots of the run, those of a stopped Postgres as much longer as they last."""
    rng.shuffle(kinds)
    stops_s = form.postgres_stop_s * kinds.count(Kind.POSTGRES_STOP)
    slot_s = (form.load_s - WARM_S - COOL_S - stops_s) / len(kinds)
    found, from_s = [], WARM_S
    for kind in kinds:
        at_s = from_s + slot_s * LATE_SHARE_MAX * rng.random()
        lasts_s = min(rng.uniform(*PAUSE_S), slot_s * (1 - LATE_SHARE_MAX) / 2)
        if kind is Kind.POSTGRES_STOP:
            lasts_s = form.postgres_stop_s
            from_s += lasts_s
        from_s += slot_s
        found.append(Fault(at_s, kind, rng.randrange(targets), lasts_s))
    return found
