"""POST /v1/chat/completions, /v1/messages, /v1/responses and their like: the path of one request, top to bottom."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import structlog

from gateway.domain.config import EngineKind
from gateway.domain.usage import UNSERVED, Status
from gateway.edge.asgi import send_error
from gateway.edge.body import parse_call, read_body
from gateway.edge.bounds import hold_to
from gateway.edge.dialects import OPENAI
from gateway.edge.identity import address_of, require_address
from gateway.edge.live import LiveRequest
from gateway.edge.markdown import refuse_markdown_images
from gateway.edge.sink import AsgiSink
from gateway.errors import (
    BudgetExceeded,
    Draining,
    EndpointNotServed,
    GatewayError,
    InternalError,
    LedgerFull,
    LedgerUnavailable,
    ModelNotAllowed,
    Unavailable,
    UpstreamTimeout,
)
from gateway.providers.dialect import serves
from gateway.relay.meter import Meter
from gateway.relay.relay import Progress
from gateway.settle.settler import Outcome

if TYPE_CHECKING:
    from uuid import UUID

    from gateway.admit.reservation import Reservation
    from gateway.domain.call import Call, Endpoint
    from gateway.domain.principal import Principal
    from gateway.edge.asgi import Receive, Scope, Send
    from gateway.edge.dialects import Dialect
    from gateway.edge.errors import Header
    from gateway.edge.stages import Stages
    from gateway.settle.ledger import Entry

_TOO_LONG = "the request took longer than the gateway allows"

REPORT_S_MAX = 5.0
"""How long a client may take to read that its request has failed, when it has not read what came before."""

_log = structlog.get_logger("penstock.edge")


class Completions:
    """A raw ASGI endpoint: one request is one coroutine.

    Every stage returns a value or raises a GatewayError, which `Surface` renders. Once the head of a stream is out, no
    status can change: from there failure is reported in the stream.
    """

    def __init__(self, endpoint: Endpoint, stages: Stages, dialect: Dialect = OPENAI) -> None:
        self._endpoint = endpoint
        self._stages = stages
        self.dialect = dialect

    async def __call__(
        self, scope: Scope, receive: Receive, send: Send, headers: dict[bytes, bytes], event_id: UUID
    ) -> None:
        started_s = time.monotonic()
        stages = self._stages
        if stages.draining:
            raise Draining("this replica is shutting down", retry_after_s=1.0)
        stages.ledger.require_available()
        if stages.in_flight >= stages.limits.requests_in_flight_max:
            raise Unavailable("the gateway is at its limit of requests in flight", retry_after_s=1.0)
        token = stages.token_of(headers)
        principal = stages.authenticator.cached(token)
        if principal is None:
            principal = await stages.authenticator.authenticate(token, address_of(scope, stages.proxies))
        if principal.addresses_allowed is not None:
            require_address(principal.addresses_allowed, scope, stages.proxies)
        connection = scope.get("penstock.connection")
        body = await read_body(
            receive,
            headers,
            arrived=connection is not None and connection.body_arrived,
            bytes_max=stages.limits.body_bytes_max,
            timeout_s=stages.limits.body_timeout_s,
        )
        call = parse_call(body, self._endpoint, headers, stages.config.by_name, event_id=event_id, started_s=started_s)
        if not principal.may_use(call.model.name):
            raise ModelNotAllowed(f"this key may not use the model '{call.model.name}'", param="model")
        kinds = [stages.config.pools[name].engine_kind for name in call.model.pools]
        if not any(serves(kind, self._endpoint) for kind in kinds):
            raise EndpointNotServed(f"the engines of '{call.model.name}' do not have this endpoint", param="model")
        if principal.output_bounds:
            hold_to(principal.output_bounds, call, kinds)
        if EngineKind.TGI in kinds:
            refuse_markdown_images(body, call.model.media_hosts)
        await self._admitted(scope, send, principal, call)

    async def _admitted(self, scope: Scope, send: Send, principal: Principal, call: Call) -> None:
        stages = self._stages
        guard = _Guard(scope, stages.total_s(call))
        entry: Entry | None = None
        try:
            reservation = await stages.admitter.admit(principal, call)
            try:
                estimate = reservation.estimate
                entry = stages.settler.open(
                    principal,
                    call,
                    estimate.prompt_tokens,
                    estimate.completion_tokens,
                    guard.total_s,
                    reservation.worst_cost,
                )
            except (LedgerFull, LedgerUnavailable):
                reservation.withdraw()
                raise
            await self._serve(scope, send, principal, call, reservation, entry, guard)
        except asyncio.CancelledError:
            if not guard.absorbs_cancellation():
                raise
            if guard.expired and entry is None:
                raise UpstreamTimeout(_TOO_LONG) from None
        finally:
            guard.disarm()

    async def _serve(
        self,
        scope: Scope,
        send: Send,
        principal: Principal,
        call: Call,
        reservation: Reservation,
        entry: Entry,
        guard: _Guard,
    ) -> None:
        """From here on the request is admitted: whatever happens, it is settled, once."""
        stages = self._stages
        headers: list[Header] = [*request_headers(call.event_id, self.dialect), *reservation.headers()]
        sink = AsgiSink(
            send, lambda: stages.ledger.hold(entry), headers, scope.get("penstock.connection"), self.dialect
        )
        progress = Progress(Meter(call.choices, reservation.estimate.prompt_tokens))
        progress.meter.output_allowance = reservation.output_allowance
        live = stages.live[call.event_id] = LiveRequest(call, progress, reservation)
        status = Status.INTERRUPTED
        error: GatewayError | None = None
        try:
            try:
                if call.stream:
                    sink.keep_alive(stages.limits.keep_alive_s)
                await stages.relay.run(call, stages.router.attempts(call), sink, progress)
                status = Status.OK
            finally:
                await sink.stop_keep_alive()
        except asyncio.CancelledError:
            if guard.hung_up:
                status = Status.CLIENT_CLOSED
            if not guard.expired or not guard.absorbs_cancellation():
                raise
            status, error = Status.UPSTREAM_ERROR, UpstreamTimeout(_TOO_LONG)
        except (BudgetExceeded, LedgerUnavailable) as stopped:
            status, error = Status.INTERRUPTED, stopped
        except GatewayError as failure:
            status, error = Status.UPSTREAM_ERROR, failure
        except Exception:
            _log.exception("request_failed", request_id=str(call.event_id))
            status, error = Status.INTERRUPTED, InternalError("the gateway failed; the request id finds it in its log")
        finally:
            del stages.live[call.event_id]
            self._settle(principal, live, entry, status, error)
        if error is not None:
            await self._report(send, sink, error, headers)

    async def _report(self, send: Send, sink: AsgiSink, error: GatewayError, headers: list[Header]) -> None:
        try:
            async with asyncio.timeout(REPORT_S_MAX):
                if sink.started:
                    await sink.fail(error)
                else:
                    await send_error(send, error, headers, self.dialect)
        except TimeoutError:
            sink.cut()  # its client reads nothing, and nobody else waits for it

    def _settle(
        self, principal: Principal, live: LiveRequest, entry: Entry, status: Status, error: GatewayError | None
    ) -> None:
        call, progress, reservation = live.call, live.progress, live.reservation
        now_s = time.monotonic()
        meter = progress.meter
        usage = live.usage(status, now_s)
        outcome = Outcome(
            status=status,
            usage=UNSERVED if isinstance(error, LedgerUnavailable) else usage,
            http_status=200 if error is None else error.status,
            error_code=None if error is None else error.code,
            attempts=progress.attempts,
            engine=progress.engine,
            served_model=progress.served_model,
            first_token_s=meter.first_token_s,
            last_token_s=meter.last_token_s,
            withdrawn=isinstance(error, LedgerUnavailable),
        )
        self._stages.settler.settle(principal, call, entry, reservation, outcome)
        if status is Status.OK and usage.exact and meter.sent_s is not None:
            generation_s = now_s - (meter.first_token_s if call.stream and meter.first_token_s else meter.sent_s)
            self._stages.admitter.learning.learn(principal, call, reservation.estimate, usage, generation_s)


def request_headers(event_id: UUID, dialect: Dialect = OPENAI) -> list[Header]:
    """Return the headers of every answer."""
    value = str(event_id).encode()
    return [(name, value) for name in dialect.request_id_headers]


class _Guard:
    """Cancels the request's task when its client hangs up or its time is over, and knows which it was."""

    __slots__ = ("_connection", "_task", "_timer", "expired", "hung_up", "total_s")

    def __init__(self, scope: Scope, total_s: float) -> None:
        task = asyncio.current_task()
        assert task is not None, "a request runs in a task"
        self._task: asyncio.Task[object] = task
        self.total_s = total_s
        self.hung_up = self.expired = False
        self._timer = asyncio.get_running_loop().call_later(total_s, self._expire)
        self._connection = scope.get("penstock.connection")
        if self._connection is not None:
            self._connection.watch(self._hang_up)

    def disarm(self) -> None:
        """The request has ended."""
        self._timer.cancel()
        if self._connection is not None:
            self._connection.unwatch(self._hang_up)

    def absorbs_cancellation(self) -> bool:
        """Whether the cancellation was this guard's own doing, which ends here."""
        if self.hung_up or self.expired:
            self._task.uncancel()
            return True
        return False

    def _hang_up(self) -> None:
        if not self.expired:
            self.hung_up = True
            self._task.cancel()

    def _expire(self) -> None:
        if not self.hung_up:
            self.expired = True
            self._task.cancel()
