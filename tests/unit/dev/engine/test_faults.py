"""Faults as options, and the order in which a Sender writes: what the wire cannot show for certain."""

import asyncio
import itertools
from typing import Any

import msgspec
import pytest

from gateway.dev.engine.behaviour import Behaviour, Control, Faults, Ordered, Overrides
from gateway.dev.engine.core import Engine
from gateway.dev.engine.errors import Broken, EngineEnd, EngineError, EngineReset, EngineVanished
from gateway.dev.engine.faults import Sender, admitted
from gateway.dev.engine.options import EngineOptions


class Written:
    """A `send` that keeps the bodies it is given."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []

    async def __call__(self, message: Any) -> None:
        if message["type"] == "http.response.body":
            self.bodies.append(message["body"])


def test_every_fault_can_be_asked_for() -> None:
    assert set(Faults.__struct_fields__) <= set(Behaviour.__struct_fields__)
    assert set(Overrides.__struct_fields__) == {*Behaviour.__struct_fields__, "no_usage"}
    assert set(Control.__struct_fields__) == {*Overrides.__struct_fields__, "times"}


def test_no_usage_is_another_name() -> None:
    start = Behaviour(usage="finish")
    found = {
        text: msgspec.json.decode(b'{"no_usage": %b}' % text, type=Overrides).over(Behaviour(), start).usage
        for text in (b"true", b"false", b"null")
    }
    assert found == {b"true": "none", b"false": "chunk", b"null": "finish"}
    both = Overrides(no_usage=True, usage="zero").over(Behaviour(), Behaviour())
    assert (both.usage, both.no_usage) == ("zero", False)


def test_what_is_ordered_for_some_requests_stands_above_what_holds_for_all() -> None:
    ordered = Ordered(Behaviour(output_tokens=9))
    ordered.change(Control(times=2, status=500))
    ordered.change(Control(output_tokens=3))
    taken = [ordered.take() for _ in range(3)]
    assert [(one.status, one.output_tokens) for one in taken] == [(500, 3), (500, 3), (None, 3)]


def test_the_next_order_for_some_requests_replaces_the_last() -> None:
    ordered = Ordered(Behaviour())
    ordered.change(Control(times=5, status=500))
    ordered.change(Control(times=1, garbage=True))
    first, second = ordered.take(), ordered.take()
    assert ((first.status, first.garbage), second) == ((None, True), Behaviour())


def test_what_is_pending_is_told_and_can_be_dropped() -> None:
    ordered = Ordered(Behaviour(output_tokens=9))
    ordered.change(Control(output_tokens=3))
    ordered.change(Control(times=2, status=500))
    assert (ordered.times_left, ordered.times_options) == (2, Overrides(status=500))
    ordered.take()
    assert (ordered.times_left, ordered.times_options) == (1, Overrides(status=500))
    ordered.change(Control(status=None))
    assert ordered.next.status == 500, "what is pending stands above what holds for all"
    ordered.reset()
    assert (ordered.times_left, ordered.times_options, ordered.next) == (0, None, Behaviour(output_tokens=9))


def test_when_the_last_of_them_was_had_nothing_is_pending() -> None:
    ordered = Ordered(Behaviour())
    ordered.change(Control(times=1, status=500))
    ordered.take()
    assert (ordered.times_left, ordered.times_options) == (0, None)


STOPS: dict[str, type[Broken] | None] = {
    "abort_after_chunks": EngineReset,
    "end_after_chunks": EngineEnd,
    "half_open_after_chunks": EngineVanished,
    "stall_after_chunks": None,
}


@pytest.mark.parametrize(("first", "second"), list(itertools.combinations(STOPS, 2)))
async def test_of_two_orders_to_stop_the_earlier_wins_and_of_equals_the_one_that_is_named_first(
    first: str, second: str
) -> None:
    for after, stop in (({first: 1, second: 1}, first), ({first: 2, second: 1}, second)):
        written = Written()
        sender = Sender(written, msgspec.convert(after, Behaviour))
        # A stall sleeps: it is the last of the four, and seen as what does not come to an end.
        with pytest.raises(STOPS[stop] or TimeoutError):
            async with asyncio.timeout(None if STOPS[stop] else 0):
                await sender.events([b"1", b"2", b"3"])
        assert written.bodies == [b"1"]


async def test_before_the_answer_a_reset_wins_over_an_error_and_both_over_the_model() -> None:
    engine = Engine(EngineOptions(models=("sim",)))
    with pytest.raises(EngineReset):
        await admitted(engine, "no such model", Overrides(reset_before=True, status=503))
    with pytest.raises(EngineError) as refused:
        await admitted(engine, "no such model", Overrides(status=503, half_open_after_chunks=0, abort_after_chunks=0))
    assert refused.value.status == 503


async def test_a_body_is_cut_into_pieces() -> None:
    written = Written()
    await Sender(written, Behaviour(bytes_per_write=2)).whole(b'{"a":1}')
    assert written.bodies == [b'{"', b'a"', b":1", b"}", b""]


async def test_events_are_held_back_until_there_are_enough_and_the_rest_until_the_end() -> None:
    written = Written()
    sender = Sender(written, Behaviour(events_per_write=2))
    await sender.events([b"1", b"2", b"3"])
    assert written.bodies == [b"12"]
    await sender.end([b"4", b"5"])
    assert written.bodies == [b"12", b"34", b"5", b""]


@pytest.mark.parametrize(
    ("behaviour", "broken"),
    [
        (Behaviour(abort_after_chunks=2, end_after_chunks=1), EngineEnd),
        (Behaviour(abort_after_chunks=1, half_open_after_chunks=2), EngineReset),
        (Behaviour(half_open_after_chunks=1, stall_after_chunks=1), EngineVanished),
    ],
)
async def test_of_two_breaks_the_earlier_one_is_done(behaviour: Behaviour, broken: type[Exception]) -> None:
    written = Written()
    with pytest.raises(broken):
        await Sender(written, behaviour).events([b"1", b"2"])
    assert written.bodies == [b"1"]


async def test_none_may_come_before_a_break() -> None:
    written = Written()
    sender = Sender(written, Behaviour(abort_after_chunks=0))
    await sender.events([])
    with pytest.raises(EngineReset):
        await sender.events([b"1"])
    assert written.bodies == []
