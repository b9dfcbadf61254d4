"""Postgres and Redis of a run's own: stopped, killed, paused and started again at the same address, by process id."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

from gateway.dev.postgres import start_postgres
from gateway.dev.redis import start_redis
from tests.support.frozen import frozen
from tests.support.servers import dedicated_postgres, dedicated_redis

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable
    from contextlib import ExitStack
    from pathlib import Path

    from gateway.dev.children import RunningServer

END_S_MAX = 30.0


class Server:
    """A server that can be taken away. What it starts ends with `stack`."""

    def __init__(
        self, stack: ExitStack, first: RunningServer, home: Path, start: Callable[[Path, Path], RunningServer]
    ) -> None:
        self._stack = stack
        self._now = first
        self._home = home
        self._start = start
        self.address = first.address

    def stop(self) -> None:
        """End it as an operator does: it writes everything down."""
        self._now.child.stop()

    def kill(self) -> None:
        """End it as a machine that is lost does."""
        self._now.child.signal(signal.SIGKILL)
        assert self._now.child.wait(END_S_MAX) is not None, "it does not end"
        self._now.child.stop()

    def start(self) -> None:
        """Start it again on what is left of its data."""
        self._now = self._start(self._home, self._home / "logs")
        self._stack.enter_context(self._now.child)
        assert self._now.address == self.address, "its port was taken meanwhile"

    def pause(self, ending: threading.Event, lasts_s: float) -> None:
        """Stop its processes for a while, and let them go on."""
        with frozen(self._now):
            ending.wait(lasts_s)


def own_postgres(stack: ExitStack) -> Server:
    """Start a migrated Postgres."""
    first = stack.enter_context(dedicated_postgres())
    return Server(stack, first, first.data.parent.parent, start_postgres)


def own_redis(stack: ExitStack) -> Server:
    """Start an empty Redis."""
    first = stack.enter_context(dedicated_redis())
    return Server(stack, first, first.data, start_redis)
