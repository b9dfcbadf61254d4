"""Takes an embedded server away for a while: frozen it keeps its connections and answers nothing, as a machine that is
lost does; stopped it is gone.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import psutil

from tests.support.servers import start_unsynced

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gateway.dev.children import RunningServer


@contextmanager
def frozen(server: RunningServer) -> Iterator[None]:
    """Stop all of a server's processes for the time of the context, then let them go on."""
    process = psutil.Process(server.child.pid)
    stopped = [process, *process.children(recursive=True)]
    for each in stopped:
        each.suspend()
    try:
        yield
    finally:
        for each in stopped:
            if each.is_running():
                each.resume()


@contextmanager
def stopped(server: RunningServer) -> Iterator[None]:
    """Stop a Postgres for the time of the context, then start it again at the same address."""
    server.child.stop()
    yield
    again = start_unsynced(server.data.parent.parent)
    assert again.address == server.address
    server.child.__dict__.update(again.child.__dict__)  # what stops the first one now stops this one
