"""What a replay came to: counts as they stand, for the live line, the table at the end and the JSON document."""

import time
from array import array
from collections import Counter
from typing import Any

from rich.table import Table
from rich.text import Text

from gateway.dev.replay.errors import printable
from gateway.dev.replay.reading import Usage

QUANTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99}


class Report:
    """Counts of one replay. `requests` are those that ended, answered or not; one that waited out a 429 is two.

    `unfinished` were under way when the replay ended. `waited_s` is the time that all agents slept after a 429.
    """

    def __init__(self) -> None:
        self.requests = self.answered = self.sub_agent_requests = self.without_usage = 0
        self.without_done = self.unfinished = 0
        self.prompt_tokens = self.cached_tokens = self.completion_tokens = 0
        self.errors: Counter[str] = Counter()
        self.messages: dict[str, str] = {}
        self.waited_s = 0.0
        self._ttfts_ms = array("d")
        self._started_s = time.monotonic()
        self._ended_s: float | None = None

    def end(self) -> None:
        """Stop the clock."""
        self._ended_s = time.monotonic()

    @property
    def elapsed_s(self) -> float:
        """Seconds since the start, or to the end."""
        return (self._ended_s or time.monotonic()) - self._started_s

    def answer(self, usage: Usage | None, ttft_s: float | None, *, sub_agent: bool, done: bool) -> None:
        """Count a request that was answered."""
        self.requests += 1
        self.answered += 1
        self.sub_agent_requests += sub_agent
        self.without_done += not done
        if ttft_s is not None:
            self._ttfts_ms.append(ttft_s * 1000)
        if usage is None:
            self.without_usage += 1
            return
        self.prompt_tokens += usage.prompt_tokens
        self.cached_tokens += usage.cached_tokens
        self.completion_tokens += usage.completion_tokens

    def error(self, code: str, message: str) -> None:
        """Count a request that failed, under a status or a word; the first message of each is kept."""
        self.requests += 1
        self.errors[code] += 1
        self.messages.setdefault(code, printable(message))

    def document(self) -> dict[str, Any]:
        """Return the report as one JSON document. Shares and times are null where nothing was measured."""
        return {
            "elapsed_s": round(self.elapsed_s, 3),
            "requests": self.requests,
            "answered": self.answered,
            "sub_agent_requests": self.sub_agent_requests,
            "unfinished": self.unfinished,
            "without_usage": self.without_usage,
            "without_done": self.without_done,
            "errors": dict(self.errors),
            "error_messages": self.messages,
            "waited_s": round(self.waited_s, 3),
            "prompt_tokens": self.prompt_tokens,
            "cached_tokens": self.cached_tokens,
            "completion_tokens": self.completion_tokens,
            "cached_share": round(self.cached_tokens / self.prompt_tokens, 4) if self.prompt_tokens else None,
            "ttft_ms": self._quantiles(),
            "completion_tokens_per_s": round(self.completion_tokens / self.elapsed_s, 1) if self.elapsed_s else None,
        }

    def line(self) -> Text:
        """Return what is shown while it runs."""
        said = (
            f"{self.elapsed_s:6.0f} s  {self.requests:,} requests  {self.errors.total():,} errors  "
            f"{self.prompt_tokens:,} tokens in ({self._cached()} cached)  {self.completion_tokens:,} out"
        )
        return Text(said, no_wrap=True, overflow="ellipsis")

    def table(self) -> Table:
        """Return the table at the end."""
        table = Table(show_header=False, box=None, pad_edge=False)
        table.add_column()
        table.add_column(justify="right")
        rows = [
            ("requests", f"{self.requests:,} in {self.elapsed_s:.1f} s"),
            ("answered", f"{self.answered:,}"),
            ("answered to sub-agents", f"{self.sub_agent_requests:,}"),
            ("tokens in", f"{self.prompt_tokens:,}"),
            ("of them cached", f"{self.cached_tokens:,} ({self._cached()})"),
            ("tokens out", f"{self.completion_tokens:,}"),
            ("tokens out per second", f"{self.completion_tokens / self.elapsed_s:,.1f}" if self.elapsed_s else "-"),
            *((f"time to first token {name}", f"{value:,.1f} ms") for name, value in (self._quantiles() or {}).items()),
            *((f"errors: {code}", f"{count:,}") for code, count in self.errors.most_common()),
        ]
        if self.waited_s:
            rows.append(("waited as told", f"{self.waited_s:,.1f} s"))
        for name, count in (
            ("unfinished at the end", self.unfinished),
            ("answers without usage", self.without_usage),
            ("streams without [DONE]", self.without_done),
        ):
            if count:
                rows.append((name, f"{count:,}"))
        for name, value in rows:
            table.add_row(Text(name), Text(value))
        return table

    def _cached(self) -> str:
        return f"{self.cached_tokens / self.prompt_tokens:.1%}" if self.prompt_tokens else "-"

    def _quantiles(self) -> dict[str, float] | None:
        if not self._ttfts_ms:
            return None
        ordered = sorted(self._ttfts_ms)
        return {name: round(ordered[int(share * (len(ordered) - 1))], 2) for name, share in QUANTILES.items()}
