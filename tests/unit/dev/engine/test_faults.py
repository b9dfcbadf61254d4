"""Faults as options, and the order in which a Sender writes: what the wire cannot show for certain."""

from typing import Any

import msgspec
import pytest

from gateway.dev.engine.behaviour import Behaviour, Control, Faults, Ordered, Overrides
from gateway.dev.engine.errors import EngineEnd, EngineReset, EngineVanished
from gateway.dev.engine.faults import Sender


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
