"""Carries one call to an engine and its answer to the client, on another engine when the first fails before a byte.

Never ends a stream cleanly without a finish_reason and [DONE]: clients loop on that, or take it for success. What
happened is left in a `Progress`, whoever ends the request, so that settling knows it also after a cancellation.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import msgspec

from gateway.domain.attempt import AttemptOutcome
from gateway.domain.call import Endpoint, Fields
from gateway.domain.upstream import UpstreamRequest
from gateway.errors import (
    BudgetExceeded,
    GatewayError,
    NoEngine,
    UpstreamBusy,
    UpstreamConnectTimeout,
    UpstreamFailed,
    UpstreamRefused,
    UpstreamStale,
    UpstreamTimeout,
    UpstreamUnreachable,
)
from gateway.providers.dialect import drop_privileged
from gateway.relay.messages import MessagesPump, count_message, count_nothing
from gateway.relay.responses import ResponsesPump, count_response
from gateway.relay.stream_pump import StreamPump
from gateway.relay.upstream_errors import BODY_BYTES_MAX, from_event, from_response
from gateway.relay.wire import UNREADABLE, read_answer

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from gateway.domain.attempt import Attempt, Attempts
    from gateway.domain.call import Call
    from gateway.domain.upstream import UpstreamResponse
    from gateway.relay.meter import Meter
    from gateway.relay.pump import Pump

ANSWER_BYTES_MAX = 64 * 2**20

_decode_fields = msgspec.json.Decoder(Fields).decode


class Sink(Protocol):
    """The client's side of an exchange, as the relay sees it. All of it may wait for a slow reader."""

    content_sent: bool
    """Whether anything but keep-alives went out: from then on no other engine may be tried."""

    async def answer(self, body: bytes) -> None:
        """Send a whole JSON answer with status 200."""
        ...

    async def write(self, events: bytes) -> None:
        """Send events of a stream, after its head where that has not gone out yet."""
        ...

    async def end(self, last: bytes) -> None:
        """Send the last events and end the stream properly."""
        ...


@dataclass(slots=True)
class Progress:
    """How far one exchange got; filled while it runs."""

    meter: Meter
    attempts: int = 0
    pool: str | None = None
    engine: str | None = None
    served_model: str | None = None


class Relay:
    """Stateless: everything about a call is in its arguments."""

    async def run(self, call: Call, attempts: Attempts, sink: Sink, progress: Progress) -> None:
        """Serve `call` from the first engine that can, or raise.

        Raises:
            UpstreamRefused: the engine says that the request is wrong.
            UpstreamBusy, UpstreamFailed, UpstreamTimeout: no engine could serve it, or one broke off after content
                was sent.
            BudgetExceeded: what was left of a budget is spent; the stream has been ended properly.
            NoEngine: there was no engine to try.
        """
        error: GatewayError | None = None
        async for attempt in attempts:
            progress.attempts += 1
            progress.pool, progress.engine = attempt.pool, attempt.engine
            progress.served_model = call.model.name
            progress.meter.reset()
            outcome, retry_after_s = AttemptOutcome.ABANDONED, None
            try:
                await self._serve(call, attempt, sink, progress.meter)
                outcome = AttemptOutcome.OK
            except UpstreamRefused:
                progress.meter.declined()
                outcome = AttemptOutcome.REFUSED
                raise
            except UpstreamBusy as busy:
                progress.meter.declined()
                outcome, retry_after_s, error = AttemptOutcome.BUSY, busy.retry_after_s, busy
            except (UpstreamUnreachable, UpstreamConnectTimeout) as failure:
                progress.meter.declined()
                outcome, error = AttemptOutcome.FAILED, failure
            except UpstreamStale as failure:
                outcome, error = AttemptOutcome.STALE, failure
            except (UpstreamFailed, UpstreamTimeout) as failure:
                outcome, error = AttemptOutcome.FAILED, failure
            finally:
                attempt.finish(outcome, retry_after_s=retry_after_s)
            if outcome is AttemptOutcome.OK:
                return
            if error is not None and sink.content_sent:
                raise error
        raise error or NoEngine("no engine for this model is available now", retry_after_s=1.0)

    async def _serve(self, call: Call, attempt: Attempt, sink: Sink, meter: Meter) -> None:
        drop_privileged(call.fields, attempt.engine_kind)
        request = UpstreamRequest(
            method=b"POST",
            path=call.endpoint.upstream_path,
            headers=attempt.headers,
            body=call.upstream_body(attempt.upstream_model),
            first_byte_s=attempt.timeouts.first_byte_s,
            idle_s=attempt.timeouts.idle_s,
        )
        meter.sent(time.monotonic())
        response = await attempt.connection.send(request)
        try:
            if response.status != 200:
                raise from_response(response.status, response.headers, await _read_error(response))
            if call.stream:
                await _stream(call, response, sink, meter)
            else:
                await _whole(call, response, sink, meter)
        finally:
            response.abort()


async def _whole(call: Call, response: UpstreamResponse, sink: Sink, meter: Meter) -> None:
    body = await _read_all(response, ANSWER_BYTES_MAX)
    try:
        fields = _decode_fields(body)
    except UNREADABLE:
        raise UpstreamFailed("the engine's answer is not a JSON object") from None
    if not _COUNTERS.get(call.endpoint, _count_completion)(body, meter, time.monotonic()):
        raise from_event(body)
    name = msgspec.json.encode(call.requested_model)
    if "model" in fields and bytes(fields["model"]) != name:
        fields["model"] = msgspec.Raw(name)
        body = msgspec.json.encode(fields)
    await sink.answer(body)


async def _stream(call: Call, response: UpstreamResponse, sink: Sink, meter: Meter) -> None:
    if b"text/event-stream" not in response.headers.get(b"content-type", b"").lower():
        raise UpstreamFailed("the engine answered a stream with something else")
    pump = _pump(call, meter)
    while True:
        data = await response.read()
        now_s = time.monotonic()
        events = pump.feed(data, now_s) if data else pump.finish(now_s)
        if pump.failure is not None:
            if events:
                await sink.write(events)
            raise from_event(pump.failure)
        if pump.done or not data:
            break
        if meter.overdrawn:
            response.abort()  # before a slow reader is waited for: the engine must not go on meanwhile
            await sink.write(events + pump.cut_short())
            raise BudgetExceeded("the budget is used up; the answer was stopped where it was")
        if events:
            await sink.write(events)
    if not pump.complete:
        if events:
            await sink.write(events)
        raise UpstreamFailed("the engine ended its stream without finishing the answer")
    await sink.end(events + pump.ending)
    # The client has everything: nothing may be waited for any more, or a hang-up now would be taken for one before.
    response.leave()


def _pump(call: Call, meter: Meter) -> Pump:
    if call.endpoint is Endpoint.MESSAGES:
        return MessagesPump(call.requested_model, meter)
    if call.endpoint is Endpoint.RESPONSES:
        return ResponsesPump(call.requested_model, meter)
    return StreamPump(call.requested_model, meter, usage_wanted=call.usage_wanted)


def _count_completion(body: bytes, meter: Meter, now_s: float) -> bool:
    answer = read_answer(body)
    if answer is None:
        return True
    if answer.failed:
        return False
    meter.count(answer, now_s)
    return True


_COUNTERS: Mapping[Endpoint, Callable[[bytes, Meter, float], bool]] = {
    Endpoint.MESSAGES: count_message,
    Endpoint.COUNT_TOKENS: count_nothing,
    Endpoint.RESPONSES: count_response,
}
"""What counts a whole answer, and says whether it is one."""


async def _read_error(response: UpstreamResponse) -> bytes:
    """Return an error's body, cut where it gets long: some engines quote the whole prompt, and the status says enough.

    Were a long body a failure of the engine, anybody could have engines ejected by sending what they refuse.
    """
    body = b""
    while len(body) <= BODY_BYTES_MAX and (piece := await response.read()):
        body += piece
    return body


async def _read_all(response: UpstreamResponse, bytes_max: int) -> bytes:
    pieces = [await response.read()]
    if response.complete and len(pieces[0]) <= bytes_max:
        rest = await response.read()
        if not rest:
            return pieces[0]
        pieces.append(rest)
    size = sum(map(len, pieces))
    while piece := await response.read():
        pieces.append(piece)
        size += len(piece)
        if size > bytes_max:
            raise UpstreamFailed("the engine's answer is too large")
    return b"".join(pieces)
