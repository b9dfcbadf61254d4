"""Tasks whose every step is seen: where a request is suspended is known, and it can be cancelled at exactly that place.

Each task of the loop drives its coroutine through `_Stepped`, which does what a task does by itself and tells the
probe in between. Nothing of asyncio is replaced, and nothing in the gateway knows.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any, TypeAlias

import uvloop

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from types import CodeType

    from tests.support.awaits import Place, Where

TURNS = 3
"""Turns of the loop after which `Moment.MEANWHILE` is: what was asked for is on its way by then."""

Spot: TypeAlias = "tuple[tuple[str, int], ...]"
"""Where a request was suspended: each of the places, and the instruction there."""


TOTAL_S = 1234.5
"""A request's time in tests that end it themselves: one that no other timer is set to."""


class WatchedLoop(uvloop.Loop):
    """Remembers the timers of requests' time-outs: their time is one that nothing else waits for."""

    def __init__(self) -> None:
        super().__init__()
        self.expiries: list[tuple[asyncio.TimerHandle, Callable[[], None]]] = []

    def call_later(  # type: ignore[override] # typed there by what the callback takes, which is nobody's concern here
        self, delay: float, callback: Any, *arguments: Any, **options: Any
    ) -> asyncio.TimerHandle:
        """See asyncio."""
        timer = super().call_later(delay, callback, *arguments, **options)
        if delay == TOTAL_S:
            self.expiries.append((timer, callback))
        return timer


class Moment(Enum):
    """When a suspended request is cancelled."""

    AT_ONCE = "at once"
    """Before the loop has done anything else."""
    MEANWHILE = "meanwhile"
    """TURNS of the loop later, if it is still suspended there."""
    ANSWERED = "answered"
    """When what it waits for is there, and before it has seen that."""


@dataclass
class Plan:
    """Cancel when the request is suspended at `spot`, and `again` at its next suspension after that."""

    spot: Spot | None
    moment: Moment
    cancel: Callable[[], None]
    again: Callable[[], None] | None = None


@dataclass
class Seen:
    """What one request's tasks did. `spots` in the order of their first time."""

    places: set[Place] = field(default_factory=set)
    spots: dict[Spot, int] = field(default_factory=dict)
    strangers: set[str] = field(default_factory=set)
    """Functions of the gateway in which the request was suspended, and not at one of the places."""
    hit: tuple[Place, ...] = ()
    """Where the cancellation came, outermost place first."""
    again: tuple[Place, ...] = ()
    """Where the second one came."""
    stuck: bool = False
    """Whether it has waited for the client to read."""


class Probe:
    """Sees the tasks of the loop that it is installed in, while a plan is armed."""

    def __init__(self, where: Where, roots: Collection[str], folder: str) -> None:
        self._where = where
        self._roots = frozenset(roots)
        self._folder = folder
        self._plan: Plan | None = None
        self._requests_to_pass = 0
        self._passed: set[asyncio.Task[Any]] = set()
        self._old: set[asyncio.Task[Any]] = set()
        self._waits: _Stepped | None = None
        self.seen = Seen()
        self.task: asyncio.Task[Any] | None = None
        """The request's own task, once it has reached a root."""

    def install(self, loop: asyncio.AbstractEventLoop) -> None:
        """See every task that the loop makes from now on."""

        def make(loop: asyncio.AbstractEventLoop, coroutine: Any, **options: Any) -> asyncio.Task[Any]:
            stepped = _Stepped(self, coroutine)
            stepped.task = asyncio.Task(stepped, loop=loop, **options)
            return stepped.task

        loop.set_task_factory(make)

    def arm(self, plan: Plan, *, after: int = 0) -> Seen:
        """Watch the request that comes after `after` others, and tasks that are made from now on."""
        self._plan, self._requests_to_pass, self.task, self._waits = plan, after, None, None
        self._passed = set()
        self._old = asyncio.all_tasks()
        self.seen = Seen()
        return self.seen

    def disarm(self) -> None:
        """Watch nothing."""
        self._plan = self.task = self._waits = None
        self._old = set()
        self._passed = set()

    @property
    def struck(self) -> bool:
        """Whether the cancellation has come."""
        return bool(self.seen.hit)

    def ended(self) -> bool:
        """Whether the request has ended."""
        return self.task is not None and self.task.done()

    def suspended(self, stepped: _Stepped) -> None:
        """A task waits now."""
        plan = self._plan
        if plan is None or stepped.task in self._old or stepped.task in self._passed:
            return
        frames = self._where.suspended(stepped.coroutine)
        below = next((n for n, (_, place, _) in enumerate(frames) if place and place.function in self._roots), None)
        if below is not None and not self._is_the_request(stepped.task):
            return
        frames = frames[below or 0 :]
        places = tuple(place for _, place, _ in frames if place)
        if not places or self.task is None:
            return
        if self.struck:
            if stepped.task is self.task and plan.again is not None:
                again, plan.again = plan.again, None
                self.seen.again = places
                again()
            return
        self._note(frames, places)
        spot = tuple((str(place), instruction) for _, place, instruction in frames if place)
        self.seen.spots[spot] = self.seen.spots.get(spot, 0) + 1
        if spot == plan.spot and self.seen.spots[spot] == 1:
            self._aim(stepped, plan, places)

    def resumes(self, stepped: _Stepped) -> bool:
        """A task goes on; returns whether it was cancelled at this very moment."""
        if self._waits is not stepped or self._plan is None:
            return False
        self._waits = None
        if self._plan.moment is not Moment.ANSWERED:
            return False
        self.seen.hit = stepped.places
        self._plan.cancel()
        return stepped.task is self.task

    def _is_the_request(self, task: asyncio.Task[Any]) -> bool:
        if self.task is None and self._requests_to_pass:
            self._requests_to_pass -= 1
            self._passed.add(task)
            return False
        self.task = self.task or task
        return task is self.task

    def _note(self, frames: list[tuple[CodeType, Place | None, int]], places: tuple[Place, ...]) -> None:
        self.seen.places.update(places)
        for code, place, _ in frames:
            if place is None and code.co_filename.startswith(self._folder):
                self.seen.strangers.add(f"{code.co_filename}: {code.co_qualname}")
            self.seen.stuck = self.seen.stuck or code.co_qualname == "FlowControl.drain"

    def _aim(self, stepped: _Stepped, plan: Plan, places: tuple[Place, ...]) -> None:
        stepped.places = places
        if plan.moment is Moment.AT_ONCE:
            self.seen.hit = places
            plan.cancel()
            return
        self._waits = stepped
        if plan.moment is Moment.MEANWHILE:
            self._after(TURNS, stepped, plan)

    def _after(self, turns: int, stepped: _Stepped, plan: Plan) -> None:
        if self._waits is not stepped or self._plan is not plan:
            return
        if turns:
            asyncio.get_running_loop().call_soon(self._after, turns - 1, stepped, plan)
            return
        self._waits = None
        self.seen.hit = stepped.places
        plan.cancel()


class _Stepped(Coroutine[Any, Any, Any]):
    """A coroutine whose driver is told of every suspension."""

    def __init__(self, probe: Probe, coroutine: Coroutine[Any, Any, Any]) -> None:
        self._probe = probe
        self.coroutine = coroutine
        self.task: asyncio.Task[Any]
        self.places: tuple[Place, ...] = ()

    def send(self, value: Any) -> Any:
        """Go on, or be cancelled with the answer at hand: as a task does that is cancelled between the two."""
        if self._probe.resumes(self):
            return None
        return self._suspended(self.coroutine.send(value))

    def throw(self, *error: Any) -> Any:
        """Go on with an exception."""
        self._probe.resumes(self)
        return self._suspended(self.coroutine.throw(*error))

    def close(self) -> None:
        """End it."""
        self.coroutine.close()

    def __await__(self) -> Any:
        return self.coroutine.__await__()

    def _suspended(self, waited_for: Any) -> Any:
        self._probe.suspended(self)
        return waited_for
