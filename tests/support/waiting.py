"""The one way in which tests wait: for a condition, up to a deadline, never for a time."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

T = TypeVar("T")
POLL_S = 0.01
TURNS_NEAR = 5000
WAIT_S_MAX = 30.0


def wait_for(look: Callable[[], T], what: str, timeout_s: float = WAIT_S_MAX) -> T:
    """Return the first true value of `look()`. Raises AssertionError, naming `what`, after `timeout_s` seconds."""
    deadline_s = time.monotonic() + timeout_s
    while True:
        found = look()
        if found:
            return found
        if time.monotonic() > deadline_s:
            raise AssertionError(f"not within {timeout_s:g} s: {what} (last seen: {found!r})")
        time.sleep(POLL_S)


async def wait_until(look: Callable[[], T], what: str, timeout_s: float = WAIT_S_MAX) -> T:
    """Do as `wait_for` does, and let the event loop run meanwhile."""
    deadline_s = time.monotonic() + timeout_s
    while True:
        found = look()
        if found:
            return found
        if time.monotonic() > deadline_s:
            raise AssertionError(f"not within {timeout_s:g} s: {what} (last seen: {found!r})")
        await asyncio.sleep(POLL_S)


async def wait_until_asked(look: Callable[[], Awaitable[T]], what: str, timeout_s: float = WAIT_S_MAX) -> T:
    """Do as `wait_until` does, for what can only be seen by asking and waiting for the answer."""
    deadline_s = time.monotonic() + timeout_s
    while True:
        found = await look()
        if found:
            return found
        if time.monotonic() > deadline_s:
            raise AssertionError(f"not within {timeout_s:g} s: {what} (last seen: {found!r})")
        await asyncio.sleep(POLL_S)


async def near(look: Callable[[], T], what: str) -> T:
    """Do as `wait_until` does, for what a few turns of this very loop bring about: look at each of them first."""
    for _ in range(TURNS_NEAR):
        if found := look():
            return found
        await asyncio.sleep(0)
    return await wait_until(look, what)
