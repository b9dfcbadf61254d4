"""Every fault that the simulated engine can have, and what the gateway makes of it: the table of the fault matrix.

The faults are the engine's own list (`gateway.dev.engine.behaviour.Faults`): one that no row of the table has fails.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

from gateway.dev.engine.behaviour import Faults, UsageShape

if TYPE_CHECKING:
    from collections.abc import Mapping

MIDDLE = 8
"""Events after which a stream has said something in every dialect."""
TOKENS = 24
"""Tokens of an answer that nothing cuts."""
NEVER_MS = 600_000

Billed = Literal["exact", "zero", "counted", "nothing"]
"""As the engine counted; zero, as it said; as the gateway counted; nothing, since nobody got anything."""


@dataclass(frozen=True)
class End:
    """How an answer ends for a client that stays. `code` None: properly.

    `begun`: the stream had said something before it failed, so that the error is its last event. `declined`: the
    engine did not begin, so that it is known to have used nothing.
    """

    billed: Billed = "nothing"
    code: str | None = None
    status: int = 200
    retry_after: str | None = None
    begun: bool = False
    declined: bool = False


PROPER = End("exact")
COUNTED = End("counted")
FAILED = End(code="upstream_error", status=502)
SILENT = End(code="upstream_timeout", status=504)
BUSY = End(code="engine_busy", status=429, retry_after="7", declined=True)
FAILED_MIDWAY = End("counted", "upstream_error", begun=True)
SILENT_MIDWAY = End("counted", "upstream_timeout", begun=True)


@dataclass(frozen=True)
class Fault:
    """One row: the options of the engine, and how a stream and a whole answer end."""

    sim: Mapping[str, Any]
    stream: End
    whole: End
    exceptions: tuple[tuple[str, End], ...] = ()
    """How a stream ends in dialects where it does so in another way."""

    @property
    def silent(self) -> bool:
        """Whether it shows by a timeout alone."""
        return self.whole.code == SILENT.code

    def end(self, dialect: str, *, stream: bool) -> End:
        """Return how an answer ends for a client that stays."""
        return dict(self.exceptions).get(dialect, self.stream) if stream else self.whole


FAULTS: dict[str, Fault] = {
    "slow-to-begin": Fault({"delay_ms": NEVER_MS}, SILENT, SILENT),
    "reset-before-a-byte": Fault({"reset_before": True}, FAILED, FAILED),
    "an-error": Fault({"status": 500}, FAILED, FAILED),
    "busy": Fault({"status": 429, "retry_after": 7}, BUSY, BUSY),
    "an-error-that-is-no-JSON": Fault({"status": 503, "garbage": True}, FAILED, FAILED),
    "garbage": Fault({"garbage": True}, FAILED, FAILED),
    "reset-at-once": Fault({"abort_after_chunks": 0}, FAILED, FAILED),
    "reset-midway": Fault({"abort_after_chunks": MIDDLE}, FAILED_MIDWAY, FAILED),
    "ended-at-once": Fault({"end_after_chunks": 0}, FAILED, FAILED),
    "ended-midway": Fault({"end_after_chunks": MIDDLE}, FAILED_MIDWAY, FAILED),
    "silent-at-once": Fault({"stall_after_chunks": 0}, SILENT, SILENT),
    "silent-midway": Fault({"stall_after_chunks": MIDDLE}, SILENT_MIDWAY, SILENT),
    "vanished-at-once": Fault({"half_open_after_chunks": 0}, SILENT, SILENT),
    "vanished-midway": Fault({"half_open_after_chunks": MIDDLE}, SILENT_MIDWAY, SILENT),
    "usage-in-a-chunk": Fault({"usage": "chunk"}, PROPER, PROPER),
    "usage-on-the-finish": Fault({"usage": "finish"}, PROPER, PROPER),
    "no-usage": Fault({"usage": "none"}, COUNTED, COUNTED),
    "zero-usage": Fault({"usage": "zero"}, End("zero"), End("zero")),
    # The last event of a response holds the response itself: without it there is neither an end nor a usage.
    "no-end-mark": Fault({"no_done": True}, PROPER, PROPER, (("responses", FAILED_MIDWAY),)),
    "all-in-one-write": Fault({"events_per_write": 1000}, PROPER, PROPER),
    "events-of-2-MB": Fault({"padding_bytes": 2_000_000, "output_tokens": 3}, PROPER, PROPER),
    # More than the gateway holds of one event; of a whole answer it holds more.
    "events-of-20-MB": Fault({"padding_bytes": 20_000_000, "output_tokens": 1}, FAILED, PROPER),
    "a-byte-at-a-time": Fault({"bytes_per_write": 1}, PROPER, PROPER),
}


def untested() -> list[str]:
    """Return what the engine can do and no row of the table does."""
    tested = {name for fault in FAULTS.values() for name in fault.sim}
    shapes = {fault.sim["usage"] for fault in FAULTS.values() if "usage" in fault.sim}
    missing = [name for name in Faults.__struct_fields__ if name not in tested]
    return missing + [f"usage={shape}" for shape in get_args(UsageShape) if shape not in shapes]


def pool(*urls: str, patience_s: float | None = None) -> dict[str, Any]:
    """Return a pool of engines that are never probed, as in penstock.yaml; `patience_s` with each of their silences."""
    unprobed = {"engine": "vllm", "endpoints": list(urls), "health": {"path": None}}
    return (
        unprobed if patience_s is None else {**unprobed, "timeouts": {"first_byte_s": patience_s, "idle_s": patience_s}}
    )
