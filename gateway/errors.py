"""The one error tree. Status and stable code sit on the class; `gateway.edge.errors` turns them into HTTP.

Everything a stage raises on purpose is a GatewayError, and foreign exceptions are translated where they are caught.
A message is one sentence for the caller: no key, no prompt text, no address of an engine.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

# What clients try again: HTTP says so of some, and real clients do it with the others (409, 529).
_TRANSIENT = frozenset({408, 409, 425, 429, 529})


class GatewayError(Exception):
    """Base of everything the gateway refuses or fails with.

    Attributes:
        status: HTTP status.
        code: stable, machine-readable; part of the API.
        kind: OpenAI's `error.type`.
        retry_after_s: seconds after which a retry makes sense, None when a retry cannot help or the time is unknown.
        param: the request field that is at fault.
        headers: what else its answer carries, in lower case.
        plain: said in the message's place where that has words that make clients retry.
    """

    status: int = 500
    code: str = "internal_error"
    kind: str = "server_error"
    headers: Sequence[tuple[bytes, bytes]] = ()
    plain: str | None = None

    def __init__(self, message: str, *, param: str | None = None, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.retry_after_s = retry_after_s

    @property
    def permanent(self) -> bool:
        """Whether repeating the same request cannot help."""
        return 400 <= self.status < 500 and self.status not in _TRANSIENT


def reason_of(error: BaseException) -> str:
    """Return why something failed, for logs and operators: a TimeoutError has no words of its own."""
    if isinstance(error, GatewayError):
        return error.message
    words = str(error)
    if words:
        return f"{type(error).__name__}: {words}"
    return "no answer in time" if isinstance(error, TimeoutError) else type(error).__name__


class InternalError(GatewayError):
    """A fault of the gateway itself; the details are in its log under the request id."""


class InvalidRequest(GatewayError):
    """The request cannot be understood; `param` names the field."""

    status, code, kind = 400, "invalid_request", "invalid_request_error"


class ImageAddressRefused(InvalidRequest):
    """The prompt holds an address (of an image, a sound, a film, a file) that must not be fetched for it."""

    code = "image_address_refused"


class InvalidKey(GatewayError):
    """No key, an unknown one, or one that counts no longer: why is told to whoever holds its secret alone."""

    status, code, kind = 401, "invalid_api_key", "authentication_error"


class BudgetExceeded(GatewayError):
    """A budget cannot cover this request: waiting cannot help before its next period."""

    status, code, kind = 402, "budget_exceeded", "invalid_request_error"


class ModelNotAllowed(GatewayError):
    """The key may not use this model."""

    status, code, kind = 403, "model_not_allowed", "permission_error"


class AddressNotAllowed(GatewayError):
    """The key may not be used from this address."""

    status, code, kind = 403, "address_not_allowed", "permission_error"


class Forbidden(GatewayError):
    """The caller is known and may not do this."""

    status, code, kind = 403, "forbidden", "permission_error"


class ModelNotFound(GatewayError):
    """No model or alias has this name."""

    status, code, kind = 404, "model_not_found", "invalid_request_error"


class NotFound(GatewayError):
    """No such route, or no such thing within the caller's reach."""

    status, code, kind = 404, "not_found", "invalid_request_error"


class EndpointNotServed(GatewayError):
    """The engines of the model do not have this endpoint."""

    status, code, kind = 400, "endpoint_not_served", "invalid_request_error"


class MethodNotAllowed(GatewayError):
    """The route exists with another method."""

    status, code, kind = 405, "method_not_allowed", "invalid_request_error"


class RequestTimeout(GatewayError):
    """The client did not send its request in time."""

    status, code, kind = 408, "request_timeout", "invalid_request_error"


class Conflict(GatewayError):
    """The name is taken, or the thing changed underneath."""

    status, code, kind = 409, "conflict", "invalid_request_error"


class PreconditionFailed(GatewayError):
    """The thing is not as the caller has seen it last: somebody changed it meanwhile."""

    status, code, kind = 412, "precondition_failed", "invalid_request_error"


class IdempotencyKeyReused(GatewayError):
    """The idempotency key was sent before, with another request."""

    status, code, kind = 422, "idempotency_key_reused", "invalid_request_error"


class BodyTooLarge(GatewayError):
    """The body is larger than the gateway accepts."""

    status, code, kind = 413, "request_too_large", "invalid_request_error"


class RequestExceedsLimit(GatewayError):
    """The request is larger than a bucket can ever hold: waiting cannot help, a shorter prompt can."""

    status, code, kind = 413, "request_exceeds_limit", "invalid_request_error"


class InstructionsExceedLimit(GatewayError):
    """The tools and instructions alone are larger than a bucket can ever hold: no shorter conversation can help.

    Not 413, which agents answer with a summary of the conversation: a request that is paid for, again and again.
    """

    status, code, kind = 400, "instructions_exceed_limit", "invalid_request_error"


class UnsupportedEncoding(GatewayError):
    """The body is compressed, or otherwise not sent as it is."""

    status, code, kind = 415, "unsupported_encoding", "invalid_request_error"


class LimitExceeded(GatewayError):
    """A limit cannot cover this request now. Of buckets `retry_after_s` is exact: deficit divided by refill rate."""

    status, code, kind = 429, "rate_limit_exceeded", "rate_limit_error"


class HeadersTooLarge(GatewayError):
    """The request head is larger than the gateway accepts."""

    status, code, kind = 431, "headers_too_large", "invalid_request_error"


class UpstreamRefused(GatewayError):
    """The engine refused the request as it stands: its own status, code and words are relayed."""

    status, code, kind = 400, "upstream_refused", "invalid_request_error"

    def __init__(
        self,
        message: str,
        *,
        status: int = 400,
        code: str | None = None,
        kind: str | None = None,
        param: str | None = None,
    ) -> None:
        super().__init__(message, param=param)
        self.status = status
        self.code = code or type(self).code
        self.kind = kind or type(self).kind


class UpstreamBusy(GatewayError):
    """Every engine that could serve this said 429."""

    status, code, kind = 429, "engine_busy", "rate_limit_error"


class UpstreamFailed(GatewayError):
    """The engine could not be reached, broke off, or answered with something that is no answer."""

    status, code, kind = 502, "upstream_error", "server_error"


class UpstreamUnreachable(UpstreamFailed):
    """No connection to the engine could be made: it knows nothing of the request."""


class UpstreamStale(UpstreamFailed):
    """A kept connection broke before a byte of an answer: the engine had closed it, or has died of the request."""


class Unavailable(GatewayError):
    """The gateway cannot serve this now."""

    status, code, kind = 503, "unavailable", "server_error"


class KeyStoreUnavailable(Unavailable):
    """The key is not in the cache and Postgres does not answer: not a statement about the key."""

    code = "key_store_unavailable"


class LedgerFull(Unavailable):
    """More events wait to be written than there is room for: nothing is served that cannot be accounted for."""

    code = "ledger_full"


class LedgerUnavailable(Unavailable):
    """Neither Postgres nor the spool takes records: nothing is served that cannot be accounted for."""

    code = "ledger_unavailable"


class LimiterUnavailable(Unavailable):
    """Redis does not answer and the policy for that is `deny`."""

    code = "limiter_unavailable"


class BudgetUnknown(Unavailable):
    """What a budget has left cannot be told now: Redis has lost it, and Postgres does not answer."""

    code = "budget_unknown"


class NoEngine(Unavailable):
    """No engine of the model's pools is healthy and has room."""

    code = "no_engine"


class Draining(Unavailable):
    """The replica is shutting down."""

    code = "draining"


class StorageUnavailable(Unavailable):
    """Postgres or Redis does not answer, told by the control plane and the command line."""

    code = "storage_unavailable"


class UpstreamTimeout(GatewayError):
    """The engine did not answer in time."""

    status, code, kind = 504, "upstream_timeout", "server_error"


class UpstreamConnectTimeout(UpstreamTimeout):
    """The engine did not accept a connection in time: it knows nothing of the request."""


class ConfigError(Exception):
    """A setting or penstock.yaml is wrong; the message says where and what to do. Never holds a secret."""
