"""Freezes an embedded server: it keeps its connections and answers nothing, as a machine that is lost does."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import psutil

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
