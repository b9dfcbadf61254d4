"""What litellm raises, as what an OpenAI-compatible engine would have answered: a status, headers and an error object.

litellm wraps whatever went wrong in its own classes, which are told by name here: its modules are not imported. What
the provider itself answered, and whether it answered at all, is in the exceptions that those were raised from.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgspec

from gateway.errors import GatewayError, UpstreamFailed, UpstreamTimeout

if TYPE_CHECKING:
    from collections.abc import Iterator

CAUSES_MAX = 16
HEADER_CHARS_MAX = 100

_BAD_REQUEST, _TOO_MANY = 400, 429
_WORDS = {"ImageFetchError": "the gateway does not fetch files: send them in the request, as data: addresses"}
_CODES = {
    "ContextWindowExceededError": "context_length_exceeded",
    "ContentPolicyViolationError": "content_policy_violation",
    "UnsupportedParamsError": "unsupported_parameter",
}
_RETRY_HEADERS = ("retry-after-ms", "retry-after")
_NETWORK_MODULES = frozenset({"aiohttp", "botocore", "httpcore", "httpx", "ssl", "urllib3"})
_FAULTS = (AttributeError, LookupError, TypeError, ValueError)
_PREFIX = re.compile(r"(?:(?:litellm\.)?[A-Za-z_]+(?:Error|Exception)(?::| -)\s*)+")
_ADVICE = re.compile(
    r"\s*(?:(?:To drop these, set|Handle with|Either provide one, or set) `litellm\.|Received Messages=).*", re.DOTALL
)
_BYTES = re.compile(r"b(['\"])(.*)\1", re.DOTALL)


@dataclass(frozen=True, slots=True)
class ErrorAnswer:
    """An answer that is no success, in OpenAI's shape."""

    status: int
    message: str
    code: str | None = None
    param: str | None = None
    headers: dict[bytes, bytes] = field(default_factory=dict)

    def body(self) -> bytes:
        """Return the JSON of a whole answer."""
        kind = "invalid_request_error" if self.status < 500 and self.status != _TOO_MANY else "server_error"
        error = {"message": self.message, "type": kind, "param": self.param, "code": self.code}
        return msgspec.json.encode({"error": error})

    def event(self) -> bytes:
        """Return the event that ends a stream which had begun."""
        return b"data: %b\n\n" % self.body()


def translated(error: BaseException) -> ErrorAnswer | GatewayError:
    """Return what the provider answered, or the failure when it did not answer.

    A fault in litellm's own code (a missing key, a wrong type) is taken for the request's: that is what its
    translations stumble over. It must not count against the engine.
    """
    wrapped = getattr(error, "original_exception", None)  # what ended a stream that had begun
    error = wrapped if isinstance(wrapped, BaseException) else error
    names = {kind.__name__ for kind in type(error).__mro__}
    chain = list(_chain(error))
    if names & {"Timeout", "APITimeoutError"} or any(_is_timeout(cause) for cause in chain):
        return UpstreamTimeout("the provider did not answer in time")
    if any(_is_network(cause) for cause in chain):
        return UpstreamFailed("the provider cannot be reached, or broke off")
    status = _status(names, chain)
    if status is not None:
        return _answer(error, status, names, chain)
    fault = chain[-1]
    if isinstance(fault, _FAULTS) and not isinstance(fault, json.JSONDecodeError | UnicodeError):
        message = f"this request cannot be translated for the model's provider ({type(fault).__name__})"
        return ErrorAnswer(_BAD_REQUEST, message, code="untranslatable")
    return UpstreamFailed("the provider's answer cannot be translated")


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield the error and what it was raised from, the first cause last."""
    cause: BaseException | None = error
    for _ in range(CAUSES_MAX):
        if cause is None:
            return
        yield cause
        cause = cause.__cause__ or cause.__context__


def _is_timeout(error: BaseException) -> bool:
    return isinstance(error, TimeoutError) or (_is_network(error) and "Timeout" in type(error).__name__)


def _is_network(error: BaseException) -> bool:
    if type(error).__name__.endswith("StatusError"):  # an answer
        return False
    return isinstance(error, OSError) or type(error).__module__.partition(".")[0] in _NETWORK_MODULES


def _status(names: set[str], chain: list[BaseException]) -> int | None:
    """Return the provider's own status where litellm has not understood more than that; None without an answer."""
    if names & _CODES.keys():
        return _BAD_REQUEST
    if "RateLimitError" in names:
        return _TOO_MANY
    # litellm gives whatever it does not know the class and status of a connection that failed.
    known = chain[1:] if "APIConnectionError" in names else chain
    for error in reversed(known):
        status = getattr(error, "status_code", None)
        if isinstance(status, int) and 400 <= status < 600:
            return status
    return None


def _answer(error: BaseException, status: int, names: set[str], chain: list[BaseException]) -> ErrorAnswer:
    message, about = _words(error)
    message = next((words for name, words in _WORDS.items() if name in names), message)
    code = next((code for name, code in _CODES.items() if name in names), None)
    theirs = about.get("code")
    param = about.get("param")
    return ErrorAnswer(
        status,
        message,
        code=code or (theirs if isinstance(theirs, str) else None),
        param=param if isinstance(param, str) else None,
        headers=_retry_headers(chain),
    )


def _words(error: BaseException) -> tuple[str, Mapping[str, Any]]:
    """Return the provider's own sentence, without litellm's names and advice, and its error object if there is one."""
    text = str(getattr(error, "message", None) or error)
    prefix = _PREFIX.match(text)
    text = _ADVICE.sub("", text[prefix.end() :] if prefix else text).strip()
    body = getattr(error, "body", None)
    about: Any = body if isinstance(body, dict) else _decoded(text)
    if isinstance(about, dict) and isinstance(about.get("error"), dict):
        about = about["error"]
    if not isinstance(about, dict):
        return text, {}
    words = about.get("message")
    return (words if isinstance(words, str) and words else text), about


def _decoded(text: str) -> Any:
    """Return the JSON that the text is, also when it is printed as bytes; None when it is none."""
    quoted = _BYTES.fullmatch(text)
    try:
        return msgspec.json.decode(quoted[2] if quoted else text)
    except (msgspec.DecodeError, UnicodeError):
        return None


def _retry_headers(chain: list[BaseException]) -> dict[bytes, bytes]:
    found: dict[bytes, bytes] = {}
    for error in chain:
        holders = (error, getattr(error, "response", None))
        sources = [getattr(holder, "headers", None) for holder in holders]
        for headers in (getattr(error, "litellm_response_headers", None), *sources):
            for name in _RETRY_HEADERS:
                value = headers.get(name) if isinstance(headers, Mapping) else None
                if isinstance(value, str) and value.isascii() and len(value) <= HEADER_CHARS_MAX:
                    found.setdefault(name.encode(), value.encode())
    return found
