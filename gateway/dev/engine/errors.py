"""Errors of the simulated engine and the body that vLLM gives them.

`EngineError` carries all that the HTTP answer needs; `app` is the only place that renders it. A `Broken` is not an
answer at all: it says what is to become of the connection where the answer stands.
"""

from http import HTTPStatus

import msgspec


class EngineError(Exception):
    """An answer with an error status. `code` is the HTTP status unless a client needs a word to act on.

    `raw` is a body that stands in the place of the usual one.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        retry_after_s: float | None = None,
        raw: bytes | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.param = param
        self.code = code
        self.retry_after_s = retry_after_s
        self.raw = raw

    def body(self) -> bytes:
        """Return the JSON body: `{"error": {"message", "type", "param", "code"}}`."""
        error = {"message": self.message, "type": type_name(self.status), "param": self.param}
        return msgspec.json.encode({"error": {**error, "code": self.code or self.status}})

    def headers(self) -> list[tuple[bytes, bytes]]:
        """Return the headers that go with the status: `retry-after` in seconds, where one was asked for."""
        if self.retry_after_s is None:
            return []
        return [(b"retry-after", f"{self.retry_after_s:g}".encode())]


class Broken(Exception):
    """The answer goes no further."""


class EngineReset(Broken):
    """The connection is to be reset (TCP RST)."""


class EngineEnd(Broken):
    """The body is to be ended in peace, as if it were complete."""


class EngineVanished(Broken):
    """The connection is neither to be read nor written nor closed any more."""


def type_name(status: int) -> str:
    """Return vLLM's error type for a status: `BadRequestError`, `NotFoundError`, `InternalServerError` …"""
    try:
        phrase = HTTPStatus(status).phrase
    except ValueError:
        return "SimulatedError"
    return phrase.replace(" ", "").removesuffix("Error") + "Error"


def bad_request(message: str, *, param: str | None = None) -> EngineError:
    """Return the 400 that vLLM gives for a field it cannot use."""
    return EngineError(400, message, param=param)


def unknown_model(name: str) -> EngineError:
    """Return the 404 for a model that this engine does not serve."""
    return EngineError(404, f"The model `{name}` does not exist.", param="model")


def context_too_long(message: str, *, param: str) -> EngineError:
    """Return the 400 for a prompt or an output that the context cannot hold; agents compact on its code."""
    return EngineError(400, message, param=param, code="context_length_exceeded")
