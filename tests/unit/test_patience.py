"""Deadlines: over in their time, and not held against an answer that lay in the socket while this process was busy."""

from __future__ import annotations

import asyncio
import socket
import sys
import time
from typing import TYPE_CHECKING

import pytest

from gateway.patience import Alarm, Deadline, done_within

if TYPE_CHECKING:
    from collections.abc import Iterator

SHORT_S = 0.01


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Two ends of a connection that do not block."""
    one, other = socket.socketpair()
    with one, other:
        one.setblocking(False)
        yield one, other


def keep_the_loop_busy(seconds: float) -> None:
    """Do what a loop does that has too much to do: nothing else."""
    until_s = time.monotonic() + seconds
    while time.monotonic() < until_s:
        pass


async def test_what_does_not_come_in_time_is_given_up() -> None:
    with pytest.raises(TimeoutError):
        async with Deadline(SHORT_S):
            await asyncio.Event().wait()


async def test_what_comes_in_time_is_not() -> None:
    async with Deadline(60.0):
        await asyncio.sleep(0)


async def test_an_answer_that_had_come_counts_although_the_loop_was_late(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    one, other = pair
    async with Deadline(SHORT_S):
        reading = asyncio.ensure_future(asyncio.get_running_loop().sock_recv(one, 1))
        await asyncio.sleep(0)
        other.send(b"x")
        keep_the_loop_busy(5 * SHORT_S)
        assert await reading == b"x"


async def test_an_alarm_goes_off_at_the_time_set_last() -> None:
    loop = asyncio.get_running_loop()
    rang: list[float] = []
    went_off = asyncio.Event()

    def ring() -> None:
        rang.append(loop.time())
        went_off.set()

    alarm = Alarm(ring)
    begun_s = loop.time()
    alarm.set(begun_s + 60.0)
    alarm.set(begun_s + SHORT_S)  # earlier than the timer that runs
    await went_off.wait()
    went_off.clear()
    alarm.set(loop.time() + SHORT_S)
    until_s = loop.time() + 3 * SHORT_S
    alarm.set(until_s)  # later
    await went_off.wait()
    assert len(rang) == 2
    assert rang[0] - begun_s < 60.0
    assert rang[1] >= until_s


async def test_a_stopped_alarm_is_silent_until_it_is_set_again() -> None:
    loop = asyncio.get_running_loop()
    went_off = asyncio.Event()
    alarm = Alarm(went_off.set)
    for end in (alarm.stop, alarm.close):
        alarm.set(loop.time() + SHORT_S)
        end()
        later = asyncio.Event()
        loop.call_later(3 * SHORT_S, later.set)
        await later.wait()
        assert not went_off.is_set()
    alarm.set(loop.time() + SHORT_S)
    await went_off.wait()


async def test_a_deadline_may_be_ended_while_it_is_ending() -> None:
    async def end_twice() -> None:
        deadline = Deadline(60.0)
        async with deadline:
            deadline.end()
            try:
                await asyncio.get_running_loop().create_future()
            finally:
                deadline.end()

    with pytest.raises(TimeoutError):
        await end_twice()


async def test_a_deadline_leaves_nothing_to_the_collector() -> None:
    """It looks seldom, since nothing on the path leaves cycles."""
    deadline = Deadline(60.0)
    references = sys.getrefcount(deadline)
    async with deadline:
        assert sys.getrefcount(deadline) > references, "its alarm refers to it"
    assert sys.getrefcount(deadline) == references


async def test_what_fails_inside_fails_as_it_did() -> None:
    with pytest.raises(KeyError):
        async with Deadline(60.0):
            raise KeyError
    with pytest.raises(asyncio.CancelledError):
        async with Deadline(60.0):
            raise asyncio.CancelledError


async def test_waiting_for_a_task_leaves_it_running() -> None:
    gate = asyncio.Event()
    task = asyncio.ensure_future(gate.wait())
    assert not await done_within(task, SHORT_S)
    assert not task.cancelled()
    gate.set()
    assert await done_within(task, 60.0)
    assert task.result()


async def test_waiting_for_a_task_says_nothing_of_how_it_ended() -> None:
    failed = asyncio.get_running_loop().create_future()
    failed.set_exception(KeyError())
    assert await done_within(failed, 60.0)
    assert isinstance(failed.exception(), KeyError)
