"""A request in flight, as those see it who ask what it has used: the path at its end, and checkpoints meanwhile."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.domain.usage import Status
from gateway.settle.checkpoints import UsedSoFar

if TYPE_CHECKING:
    from gateway.admit.reservation import Reservation
    from gateway.domain.call import Call
    from gateway.domain.usage import TokenUsage
    from gateway.relay.relay import Progress


class LiveRequest:
    """One admitted request and how far it got."""

    __slots__ = ("call", "progress", "reservation")

    def __init__(self, call: Call, progress: Progress, reservation: Reservation) -> None:
        self.call = call
        self.progress = progress
        self.reservation = reservation

    def usage(self, status: Status, now_s: float) -> TokenUsage:
        """Return what is billed when it ends with `status` at `now_s`, seconds of the monotonic clock."""
        call, reservation = self.call, self.reservation
        return self.progress.meter.usage(
            status,
            output_estimate_max=(
                reservation.estimate.completion_tokens if call.output_max is None else call.output_max * call.choices
            ),
            output_per_s=reservation.experience.output_tokens_per_s * call.choices,
            streamed=call.stream,
            ended_s=now_s,
        )

    def used_so_far(self, now_s: float) -> UsedSoFar:
        """Return what would be billed if it were cut off at `now_s`."""
        progress = self.progress
        meter = progress.meter
        usage = self.usage(Status.INTERRUPTED, now_s)
        ttft_s = None if meter.first_token_s is None else meter.first_token_s - self.call.started_s
        return UsedSoFar(
            begun=meter.sent_s is not None,
            prompt=usage.prompt,
            cached=usage.cached,
            completion=usage.completion,
            reasoning=usage.reasoning,
            served_model=progress.served_model,
            engine=progress.engine,
            session=self.call.session,
            attempts=progress.attempts,
            ttft_ms=None if ttft_s is None else round(ttft_s * 1000),
        )
