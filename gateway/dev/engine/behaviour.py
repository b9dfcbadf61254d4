"""How requests are answered: what tests and people change while the engine runs, and ask for per request.

Behaviour has four layers, the later winning: the command line, `POST /sim/control`, the body's top-level `"sim":
{…}`, and `x-sim-*` request headers. A `null` (or the header value `null`) means the value that the engine was started
with.
"""

from collections.abc import Iterable
from typing import Annotated

import msgspec
from msgspec import UNSET, Meta, UnsetType

from gateway.dev.engine.errors import bad_request

HEADER_PREFIX = b"x-sim-"
TTFT_MS_MAX = 600_000
TOKENS_PER_SECOND_MAX = 1_000_000
LOAD_SLOWDOWN_MAX = 1_000
OUTPUT_TOKENS_MAX = 1_048_576
TEXT_CHARS_MAX = 262_144

_Millis = Annotated[float, Meta(ge=0, le=TTFT_MS_MAX)]
_Rate = Annotated[float, Meta(ge=0, le=TOKENS_PER_SECOND_MAX)]
_Share = Annotated[float, Meta(ge=0, le=LOAD_SLOWDOWN_MAX)]
_Tokens = Annotated[int, Meta(ge=1, le=OUTPUT_TOKENS_MAX)]
_TokensOrNone = Annotated[int, Meta(ge=0, le=OUTPUT_TOKENS_MAX)]
_Status = Annotated[int, Meta(ge=400, le=599)]
_Seconds = Annotated[float, Meta(ge=0, le=86_400)]
_Chunks = Annotated[int, Meta(ge=0, le=OUTPUT_TOKENS_MAX)]
_Text = Annotated[str, Meta(max_length=TEXT_CHARS_MAX)]


class Behaviour(msgspec.Struct, frozen=True, kw_only=True):
    """How one request is answered.

    `ttft_ms`: to the first token, beside what its prefill costs. `tokens_per_second`: of each stream; 0 is as fast as
    it goes. `prefill_tokens_per_second`: how fast prompt tokens that are not cached are computed, one prompt after the
    other; 0 takes no time. `load_slowdown`: by which share of its pace each other running request slows this one down.
    `output_tokens`: tokens of an answer, the end token included, where `max_tokens` does not cut it.
    `reasoning_tokens`: tokens of `reasoning_content` before it. `text`: say exactly this. `status`: answer with this
    error, with `retry_after` seconds in the header. `abort_after_chunks`: reset the connection after that many SSE
    events (0: after the first token's time, with nothing said; an answer that is not streamed is reset in its place).
    `no_usage`: leave usage out everywhere.
    """

    ttft_ms: float = 20.0
    tokens_per_second: float = 200.0
    prefill_tokens_per_second: float = 0.0
    load_slowdown: float = 0.0
    output_tokens: int = 64
    reasoning_tokens: int = 0
    text: str | None = None
    status: int | None = None
    retry_after: float | None = None
    abort_after_chunks: int | None = None
    no_usage: bool = False


class Overrides(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """The same options where each may be missing; the bounds of what a request may ask for."""

    ttft_ms: _Millis | UnsetType | None = UNSET
    tokens_per_second: _Rate | UnsetType | None = UNSET
    prefill_tokens_per_second: _Rate | UnsetType | None = UNSET
    load_slowdown: _Share | UnsetType | None = UNSET
    output_tokens: _Tokens | UnsetType | None = UNSET
    reasoning_tokens: _TokensOrNone | UnsetType | None = UNSET
    text: _Text | UnsetType | None = UNSET
    status: _Status | UnsetType | None = UNSET
    retry_after: _Seconds | UnsetType | None = UNSET
    abort_after_chunks: _Chunks | UnsetType | None = UNSET
    no_usage: bool | UnsetType | None = UNSET

    def over(self, current: Behaviour, started_with: Behaviour) -> Behaviour:
        """Return `current` with these options in their place; a `None` takes the value of `started_with`."""
        changes = {
            name: getattr(started_with, name) if value is None else value
            for name in self.__struct_fields__
            if (value := getattr(self, name)) is not UNSET
        }
        return msgspec.structs.replace(current, **changes) if changes else current


def overrides_of_headers(headers: Iterable[tuple[bytes, bytes]]) -> Overrides | None:
    """Return the options in `x-sim-*` headers, `None` when there are none.

    `x-sim-ttft-ms: 50` sets `ttft_ms`. Raises EngineError 400 for an unknown option or a value out of bounds.
    """
    found: dict[str, str | None] = {}
    for name, value in headers:
        if name.startswith(HEADER_PREFIX):
            option = name[len(HEADER_PREFIX) :].decode("latin-1").replace("-", "_")
            text = value.decode("utf-8", "replace")
            found[option] = None if text == "null" else text
    if not found:
        return None
    try:
        return msgspec.convert(found, Overrides, strict=False)
    except msgspec.ValidationError as error:
        raise bad_request(f"x-sim header: {error}") from error
