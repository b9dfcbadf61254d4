"""Runs these tests on the event loop that serves, with an eye on its timers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.support.stepping import WatchedLoop

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Mapping


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Return the one event loop to test on."""
    return {"uvloop": WatchedLoop}
