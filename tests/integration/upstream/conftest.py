"""Runs these tests on both event loops: uvloop is what serves, asyncio's own is what it must not differ from."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import uvloop

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Return the event loops to test on, by the name that a test's id shows."""
    return {"uvloop": uvloop.new_event_loop, "asyncio": asyncio.new_event_loop}
