"""A script that was called: its answer to come, and what Redis says when it does not run it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any, Protocol

from gateway.errors import LimiterUnavailable

if TYPE_CHECKING:
    import asyncio

    from gateway.admit.script import Script
    from gateway.storage.redis_link import Command

_UNABLE = re.compile(
    r"\b(READONLY|OOM|LOADING|BUSY|MISCONF|MASTERDOWN|NOREPLICAS|CLUSTERDOWN|NOAUTH|NOPERM|NOSCRIPT|WRONGPASS)\b"
    r"|ACL failure in script|user executing the script can't run"
)
"""What Redis says when it can run no script, or none that writes. Before version 7 the word stands inside the text."""

_WRAPPING = re.compile(r"^ERR Error running script \(call to \w+\):? (?:@\w+: ?\d+: )+-?| script: \w+, on @\w+:\d+\.?$")
"""What Redis puts before the error of a command in a script, in version 7 after it: it tells operators nothing."""

_ELSEWHERE = ("MOVED ", "ASK ", "TRYAGAIN ", "CLUSTERDOWN Hash slot not served")
REASON_CHARS_MAX = 200


class Refusal(Enum):
    """Why Redis answered a script call with an error."""

    UNABLE = "unable"
    """It runs no script now, or none that writes: it counts as away."""
    ELSEWHERE = "elsewhere"
    """This node of a cluster is well, but is not to be asked about these keys, or not now."""
    FAILED = "failed"
    """This one call found what it cannot work with."""

    @classmethod
    def of(cls, text: str) -> Refusal:
        """Return what an error's text says."""
        if text.startswith(_ELSEWHERE):
            return cls.ELSEWHERE
        return cls.UNABLE if _UNABLE.search(text) else cls.FAILED


def meaning_of(text: str) -> str:
    """Return an error of Redis as the command in the script had it, such as `READONLY You can't write …`, bounded."""
    return _WRAPPING.sub("", text)[:REASON_CHARS_MAX]


class ScriptFailed(LimiterUnavailable):
    """Redis is well, but what this one call found there is not what it wrote: a key of another type, for instance."""


@dataclass(slots=True, eq=False)
class ScriptCall:
    """A script, what it is called with, and its answer to come."""

    script: Script
    arguments: Command
    future: asyncio.Future[Any]
    deadline_s: float | None = None
    """Set when Redis is first asked, or first looked for."""
    sent_again: bool = False
    """After the connection broke."""
    reloaded: bool = False
    """After Redis did not know the script."""
    sent_elsewhere: bool = False
    """After a node of a cluster did not have the keys."""

    def command(self) -> Command:
        """Return it as Redis reads it."""
        return ("EVALSHA", self.script.sha1, *self.arguments)

    def resolve(self, answer: Any) -> None:
        """Hand the answer on, if somebody still waits for it."""
        if not self.future.done():
            self.future.set_result(answer)

    def fail(self, error: LimiterUnavailable) -> None:
        """No answer will come."""
        if not self.future.done():
            self.future.set_exception(error)


class Owner(Protocol):
    """Who hears how Redis does, before the calls concerned have their outcome. No method may raise."""

    def away(self, reason: str) -> None:
        """Redis is away, late, or refuses to run scripts. Said again with every failure."""
        ...

    def script_failed(self, error: ScriptFailed) -> None:
        """One call failed by what it found in Redis."""
        ...

    def elsewhere(self, call: ScriptCall, text: str) -> None:
        """Take over a call whose keys another node of a cluster has, as `text` says."""
        ...
