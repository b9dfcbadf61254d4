"""Probes of engines: two misses in a row take one out, one answer brings it back, and nothing else ends probing."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from gateway.domain.config import HealthCheck
from gateway.errors import GatewayError, UpstreamFailed, UpstreamTimeout
from gateway.observe.metrics import Metrics
from gateway.route import health
from gateway.route.engine import Engine
from gateway.route.health import PROBE_BYTES_MAX, watch
from tests.unit.route.parts import NEVER_PROBED, pool

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.domain.upstream import UpstreamRequest

INTERVAL_S = 5.0


class Answer:
    """A response to a probe; an error in its body is raised."""

    def __init__(self, status: int, *pieces: bytes | GatewayError) -> None:
        self.status = status
        self.headers: dict[bytes, bytes] = {}
        self.complete = False
        self.aborted = False
        self._pieces = list(pieces)

    async def read(self) -> bytes:
        """Return the next piece."""
        piece = self._pieces.pop(0) if self._pieces else b""
        if isinstance(piece, bytes):
            return piece
        raise piece

    def leave(self) -> None:
        """Nothing is left to come."""

    def abort(self) -> None:
        """Take note."""
        self.aborted = True


class Probed:
    """Answers probe after probe as told, and stops the watch when there is nothing left to answer."""

    def __init__(self, *answers: Answer | GatewayError) -> None:
        self._answers = list(answers)
        self.requests: list[UpstreamRequest] = []

    async def send(self, request: UpstreamRequest) -> Answer:
        """Answer."""
        if not self._answers:
            raise asyncio.CancelledError
        self.requests.append(request)
        answer = self._answers.pop(0)
        if isinstance(answer, Answer):
            return answer
        raise answer

    async def close(self) -> None:
        """Nothing is kept."""


async def watched(monkeypatch: pytest.MonkeyPatch, *answers: Answer | GatewayError) -> tuple[list[bool], list[float]]:
    """Return whether the engine was up after each probe, and for how long each pause was."""
    engine = Engine(pool("p", 1, health=HealthCheck("/health", INTERVAL_S)), "http://127.0.0.1:1", Metrics())
    probed = engine.connection = Probed(*answers)
    ups, pauses = [], []

    async def sleep(seconds: float) -> None:
        ups.append(engine.up)
        pauses.append(seconds)

    class Asyncio:
        """What `health` uses of asyncio, with a sleep that takes no time."""

        timeout = staticmethod(asyncio.timeout)

    monkeypatch.setattr(Asyncio, "sleep", staticmethod(sleep), raising=False)
    monkeypatch.setattr(health, "asyncio", Asyncio)
    with pytest.raises(asyncio.CancelledError):
        await watch(engine)
    assert all((each.method, each.path, each.body) == (b"GET", "/health", b"") for each in probed.requests)
    return ups, pauses


def good() -> Answer:
    return Answer(200, b"ok")


@pytest.mark.parametrize(
    "miss",
    [
        lambda: UpstreamFailed("cut"),
        lambda: UpstreamTimeout("late"),
        lambda: Answer(503, b"loading"),
        lambda: Answer(404),
        lambda: Answer(200, b"o", UpstreamFailed("cut")),
    ],
    ids=["cut", "late", "503", "404", "half"],
)
async def test_two_misses_take_an_engine_out_and_one_answer_brings_it_back(
    monkeypatch: pytest.MonkeyPatch, miss: Callable[[], Answer | GatewayError]
) -> None:
    answers = [good(), miss(), good(), miss(), miss(), miss(), good()]
    ups, pauses = await watched(monkeypatch, *answers)
    assert ups == [True, True, True, True, False, False, True]
    assert [pause < INTERVAL_S for pause in pauses] == [False, True, False, True, False, False, False]


async def test_every_answer_is_let_go_and_a_long_one_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    endless = Answer(200, *[b"x" * PROBE_BYTES_MAX] * 10)
    cut = Answer(200, UpstreamFailed("cut"))
    ups, _ = await watched(monkeypatch, endless, cut)
    assert ups == [True, True]
    assert endless.aborted
    assert cut.aborted
    assert len(endless._pieces) == 8


async def test_a_pool_without_a_health_path_is_never_probed() -> None:
    engine = Engine(pool("p", 1, health=NEVER_PROBED), "http://127.0.0.1:1", Metrics())
    probed = engine.connection = Probed(good())
    await watch(engine)
    assert probed.requests == []
