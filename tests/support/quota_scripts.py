"""The limiter's scripts with leases and budgets, called on a real Redis, and what the Python reference makes of it.

Time passes by moving the moments at which places and holds lapse; steps are seconds, so the few milliseconds that a
test itself takes decide nothing.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

import msgspec

from gateway.admit.bucket import NOTHING, UsageVector
from gateway.admit.budget import BudgetState, BudgetTerms, Lacking, afford, spend
from gateway.admit.policy import BUDGET_WAIT_MS, CONCURRENCY_WAIT_MS, LEASE_MS
from gateway.admit.script import Script
from tests.support.limiter_scripts import RESERVATION_MS, WITHDRAWAL_MS

if TYPE_CHECKING:
    from collections.abc import Sequence

    import redis

CAPACITY = 10**9
"""Of the one bucket, which holds this many requests and gets one an hour."""

REFILL_PER_S = 1 / 3600
LATE_MS = 10**15


@dataclass
class Quotas:
    """All state: what each place and hold lapses at, in milliseconds from the beginning. `taken` None: withdrawn."""

    places: list[int]
    terms: list[BudgetTerms]
    now_ms: int = 0
    bucket_used: int = 0
    leases: list[dict[str, int]] = field(default_factory=list)
    budgets: list[BudgetState | None] = field(default_factory=list)
    holds: list[dict[str, tuple[int, int]]] = field(default_factory=list)
    taken: dict[str, tuple[int, int] | None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.leases = [{} for _ in self.places]
        self.budgets = [None for _ in self.terms]
        self.holds = [{} for _ in self.terms]

    def reserve(self, event: str, requests: int, worst: int, least: int) -> tuple[int, ...]:
        """Reserve; returns the beginning of what the script must answer: code, and index or what was taken."""
        if event in self.taken:
            taken = self.taken[event]
            if taken is not None:
                self._lapse(worst)
            return (0, 0) if taken is None else (1, taken[1])
        unknown = [1 + len(self.places) + n for n, state in enumerate(self.budgets, 1) if state is None]
        self._lapse(worst)
        if unknown and worst:
            return (-2, *unknown)
        states = [state for state in self.budgets if state is not None] if worst else []
        before = deepcopy(states)
        paid = afford(self.terms, states, worst, least) if worst else 0
        if isinstance(paid, Lacking) and paid.for_good:
            return (-1, 1 + len(self.places) + paid.position + 1)
        waits = []
        if requests > CAPACITY - self.bucket_used:
            waits.append((LATE_MS, 1))
        live = [sum(lapse_ms > self.now_ms for lapse_ms in held.values()) for held in self.leases]
        waits += ((CONCURRENCY_WAIT_MS, 2 + n) for n, most in enumerate(self.places) if live[n] >= most)
        if isinstance(paid, Lacking):
            waits.append((BUDGET_WAIT_MS, 1 + len(self.places) + paid.position + 1))
        if waits or isinstance(paid, Lacking):
            for state, old in zip(states, before, strict=True):
                state.spent, state.reserved = old.spent, old.reserved
            return (0, max(waits, key=lambda wait: wait[0])[1])
        self._grant(event, requests, paid)
        return (1, paid)

    def _grant(self, event: str, requests: int, paid: int) -> None:
        self.bucket_used += requests
        for held in self.leases:
            for lapsed in [other for other, lapse_ms in held.items() if lapse_ms <= self.now_ms]:
                del held[lapsed]
            held[event] = self.now_ms + LEASE_MS
        if paid:
            for holds in self.holds:
                holds[event] = (paid, self.now_ms + RESERVATION_MS)
        self.taken[event] = (requests, paid)

    def settle(self, event: str, requests: int, cost: int) -> int:
        """Settle; returns what the script must answer."""
        for held in self.leases:
            held.pop(event, None)
        taken = self.taken.get(event)
        if taken is None:
            return 0
        del self.taken[event]
        self.bucket_used = max(self.bucket_used + requests - taken[0], 0)
        for state, holds in zip(self.budgets, self.holds, strict=True):
            if state is None:
                continue
            if taken[1] and event not in holds:  # it has lapsed, which counted as spent
                state.spent, state.reserved = max(state.spent - taken[1], 0), state.reserved + taken[1]
            holds.pop(event, None)
            spend([state], taken[1], cost)
        return 1

    def withdraw(self, event: str) -> int:
        """Withdraw, whether or not it was reserved; returns what the script must answer."""
        answer = self.settle(event, 0, 0)
        if not answer:
            self.taken[event] = None
        return answer

    def begin(self, spent: int, open_: int) -> None:
        """Begin all budgets that are not."""
        for index, state in enumerate(self.budgets):
            if state is None:
                self.budgets[index] = BudgetState(spent, open_)
                self.holds[index] = {"rebuilt": (open_, self.now_ms + RESERVATION_MS)} if open_ else {}

    def mend(self, delta: int, rebuilt_max: int, times: int) -> list[tuple[int, int, int]]:
        """Correct all budgets; returns spent, reserved and what is rebuilt of each, -1 where it is not begun."""
        self._lapse(None)
        seen = []
        for state, holds in zip(self.budgets, self.holds, strict=True):
            if state is None:
                seen.append((-1, -1, -1))
                continue
            rebuilt, lapse_ms = holds.get("rebuilt", (0, 0))
            if not times:
                left = min(rebuilt, rebuilt_max)
                freed = min(rebuilt - left, state.reserved)
                if left < rebuilt:
                    del holds["rebuilt"]
                    holds.update({"rebuilt": (left, lapse_ms)} if left else {})
                state.spent = max(state.spent + freed + delta, 0)
                state.reserved -= freed
                rebuilt = left
            seen.append((state.spent, state.reserved, rebuilt))
        return seen

    def renew(self, events: Sequence[str]) -> None:
        """Renew the places of events."""
        for held in self.leases:
            held.update(dict.fromkeys(events, self.now_ms + LEASE_MS))

    def _lapse(self, worst: int | None) -> None:
        """Let lapse what cannot pay for `worst`; None: all."""
        for term, state, holds in zip(self.terms, self.budgets, self.holds, strict=True):
            if state is None or worst == 0:
                continue
            if worst is not None and state.spent + state.reserved + worst <= term.amount:
                continue
            for event in [each for each, (_, lapse_ms) in holds.items() if lapse_ms <= self.now_ms]:
                held = min(holds.pop(event)[0], state.reserved)
                state.spent, state.reserved = state.spent + held, state.reserved - held


class QuotaScripts:
    """The scripts over keys of their own, one bucket beside the leases and budgets."""

    def __init__(self, client: redis.Redis, prefix: str, reference: Quotas) -> None:
        self._client = client
        self._prefix = prefix
        self._leases = [f"{prefix}:l:{number}" for number in range(len(reference.places))]
        self._budgets = [f"{prefix}:s:{number}" for number in range(len(reference.terms))]
        self._holds = [f"{prefix}:h:{number}" for number in range(len(reference.terms))]
        self._pairs = [key for pair in zip(self._budgets, self._holds, strict=True) for key in pair]
        self._keys = [f"{prefix}:b", *self._leases, *self._pairs]
        self._spec = msgspec.json.encode([[CAPACITY, REFILL_PER_S, 1, 0, 0, 0]])
        budgets = [term.told() for term in reference.terms]
        terms = [LEASE_MS, CONCURRENCY_WAIT_MS, BUDGET_WAIT_MS, reference.places, budgets]
        self._terms = msgspec.json.encode(terms)
        self._scripts = {
            name: Script.load(name) for name in ("reserve", "settle", "renew", "begin_budgets", "mend_budgets")
        }

    def reserve(self, event: str, requests: int, worst: int, least: int) -> list[int]:
        """Reserve."""
        usage = msgspec.json.encode(UsageVector(requests, 0, 0, 0))
        wanted = msgspec.json.encode((worst, least))
        return cast(
            "list[int]",
            self._run("reserve", self._of(event), RESERVATION_MS, self._spec, usage, event, self._terms, wanted),
        )

    def settle(self, event: str, requests: int, cost: int) -> int:
        """Settle."""
        usage = msgspec.json.encode(UsageVector(requests, 0, 0, 0))
        return cast("int", self._run("settle", self._of(event), self._spec, usage, 0, event, len(self._leases), cost))

    def withdraw(self, event: str) -> int:
        """Withdraw."""
        usage = msgspec.json.encode(NOTHING)
        arguments = (self._spec, usage, WITHDRAWAL_MS, event, len(self._leases), 0)
        return cast("int", self._run("settle", self._of(event), *arguments))

    def begin(self, spent: int, open_: int) -> None:
        """Begin all budgets that are not."""
        if self._budgets:
            sums = msgspec.json.encode([(spent, open_, 10**13) for _ in self._budgets])
            self._run("begin_budgets", self._pairs, sums, RESERVATION_MS)

    def mend(self, delta: int, rebuilt_max: int, times: int) -> list[tuple[int, int, int]]:
        """Correct all budgets that were corrected `times` less; returns spent, reserved and rebuilt of each."""
        corrected = [int(self._client.hget(key, "mended") or 0) for key in self._budgets]
        told = msgspec.json.encode([(delta, each - times, [], rebuilt_max) for each in corrected])
        answer = self._run("mend_budgets", self._pairs, told) if self._budgets else []
        return [(answer[at], answer[at + 1], answer[at + 3]) for at in range(0, len(answer), 4)]

    def renew(self, events: Sequence[str]) -> None:
        """Renew the places of events."""
        if self._leases and events:
            self._run("renew", self._leases, LEASE_MS, msgspec.json.encode([events for _ in self._leases]))

    def elapse(self, elapsed_ms: int) -> None:
        """Let time pass for all places and holds."""
        for key in (*self._leases, *self._holds):
            for member, _ in cast("list[tuple[bytes, float]]", self._client.zrange(key, 0, -1, withscores=True)):
                self._client.zincrby(key, -elapsed_ms, member)

    def forget(self, event: str) -> None:
        """Let a reservation lapse."""
        self._client.delete(f"{self._prefix}:r:{event}")

    def places(self) -> list[set[str]]:
        """Return who has a place, lapsed or not."""
        return [{member.decode() for member in self._members(key)} for key in self._leases]

    def budgets(self) -> list[tuple[int, int] | None]:
        """Return spent and reserved of each budget, None for one that is not begun."""
        found = [cast("list[bytes | None]", self._client.hmget(key, "spent", "reserved")) for key in self._budgets]
        return [None if each[0] is None or each[1] is None else (int(each[0]), int(each[1])) for each in found]

    def lives_ms(self) -> list[int]:
        """Return how much longer each budget is kept, negative for one that is not begun."""
        return [self._client.pttl(key) for key in self._budgets]

    def holds(self) -> list[dict[str, int]]:
        """Return what is held of each budget by whom."""
        return [dict(_held(member) for member in self._members(key)) for key in self._holds]

    def _members(self, key: str) -> list[bytes]:
        return cast("list[bytes]", self._client.zrange(key, 0, -1))

    def _of(self, event: str) -> list[str]:
        return [f"{self._prefix}:r:{event}", *self._keys]

    def _run(self, name: str, keys: list[str], *arguments: Any) -> Any:
        script = self._scripts[name]
        self._client.script_load(script.source)
        return self._client.evalsha(script.sha1, len(keys), *keys, *arguments)


def _held(member: bytes) -> tuple[str, int]:
    event, amount = member.decode().split()
    return event, int(amount)
