"""Counts what a request uses while its answer passes: by the engine's own usage, else by the deltas that went by."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

from gateway.domain.usage import NO_USAGE, Coverage, Status, TokenUsage
from gateway.relay.wire import estimated_tokens

if TYPE_CHECKING:
    from gateway.relay.wire import Answer


class Meter:
    """What is known so far of one request's usage."""

    __slots__ = (
        "_before_s",
        "_choices",
        "_finished",
        "_prompt_estimate",
        "_seen",
        "_usage",
        "completion_tokens",
        "first_token_s",
        "last_token_s",
        "output_allowance",
        "prompt",
        "sent_s",
    )

    def __init__(self, choices: int, prompt_estimate: int = 0) -> None:
        self._choices = choices
        self._prompt_estimate = prompt_estimate
        self.sent_s: float | None = None
        """When an engine that may have computed was given the request last."""
        self._before_s: float | None = None
        self.output_allowance: float = math.inf
        """How many tokens may be generated before what is left of a budget is spent: then the stream is stopped."""
        self.reset()

    def reset(self) -> None:
        """Forget what a failed attempt delivered: nothing of it reached the client."""
        self.completion_tokens = 0
        self.first_token_s: float | None = None
        self.last_token_s: float | None = None
        self.prompt: TokenUsage | None = None
        """The prompt as an engine counted it before it began to answer; what counts where it never said more."""
        self._usage: TokenUsage | None = None
        self._seen: set[int] = set()
        self._finished: set[int] = set()

    def sent(self, now_s: float) -> None:
        """The engine is being given the request: from now on it may compute. Monotonic seconds."""
        self._before_s, self.sent_s = self.sent_s, now_s

    def declined(self) -> None:
        """This engine said no before it began, or never saw the request: it has computed nothing."""
        self.sent_s = self._before_s

    def count(self, answer: Answer, now_s: float) -> None:
        """Take in a chunk or a whole answer that arrived at `now_s`, monotonic seconds."""
        generated = 0
        for choice in answer.choices or ():
            generated += estimated_tokens(choice.generated_bytes())
            self._seen.add(choice.index)
            if choice.finish_reason is not None:
                self._finished.add(choice.index)
        if generated:
            self._grow(generated, now_s)
        if answer.usage is not None:
            self._usage = answer.usage.tokens() or self._usage

    def take(
        self, generated_bytes: int, now_s: float, *, finished: bool = False, usage: TokenUsage | None = None
    ) -> None:
        """Take in an event, or the whole, of an answer that has one choice; `usage` is the engine's word so far."""
        if generated_bytes:
            self._grow(estimated_tokens(generated_bytes), now_s)
        self._seen.add(0)
        if finished:
            self._finished.add(0)
        if usage is not None:
            self._usage = usage

    def nothing(self) -> None:
        """What was asked for uses no tokens."""
        self._usage = NO_USAGE

    def _grow(self, generated: int, now_s: float) -> None:
        self.completion_tokens += generated
        self.last_token_s = now_s
        if self.first_token_s is None:
            self.first_token_s = now_s

    @property
    def overdrawn(self) -> bool:
        """Whether what was left of a budget is spent, while the answer has yet to end."""
        return self.completion_tokens >= self.output_allowance and not self.finished

    @property
    def unfinished(self) -> list[int]:
        """The choices that were begun and have not ended, at least one."""
        return sorted(self._seen - self._finished) or [0]

    @property
    def finished(self) -> bool:
        """Whether all choices that were asked for have ended with a finish_reason."""
        return len(self._finished) >= self._choices

    @property
    def consistent(self) -> bool:
        """Whether all choices that were begun have ended; enough when the engine itself says that it is done."""
        return bool(self._finished) and self._finished == self._seen

    @property
    def told(self) -> bool:
        """Whether the engine itself has said what was used."""
        return self._usage is not None

    @property
    def counted(self) -> TokenUsage:
        """What was used as far as the gateway can tell: the prompt's estimate, and what went by."""
        prompt = self.prompt or TokenUsage(prompt=self._prompt_estimate)
        return replace(prompt, completion=self.completion_tokens, coverage=Coverage.ESTIMATED)

    def usage(
        self,
        status: Status,
        *,
        output_estimate_max: int,
        output_per_s: float,
        streamed: bool,
        ended_s: float,
    ) -> TokenUsage:
        """Return what is billed.

        The engine's word counts where it was given. Otherwise the prompt is estimated, and the completion counted from
        what went by; an answer that was to come whole and that nobody waited for is estimated from the time the engine
        had, at `output_per_s`, from one token up to `output_estimate_max`. A request that no engine began on used
        nothing, exactly. One that failed before anything came is not charged either, but what engines did until then is
        not known.
        """
        if self._usage is not None:
            exact = status is Status.OK
            return self._usage if exact else replace(self._usage, coverage=Coverage.ESTIMATED)
        if self.sent_s is None:
            return NO_USAGE
        if status is Status.UPSTREAM_ERROR and not self.completion_tokens:
            return replace(NO_USAGE, coverage=Coverage.ESTIMATED)
        counted = self.counted
        if not streamed and not counted.completion and status is not Status.OK:
            completion = min(max(int((ended_s - self.sent_s) * output_per_s), 1), output_estimate_max)
            counted = replace(counted, completion=completion)
        return counted
