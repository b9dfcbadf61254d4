"""How requests are answered: what tests and people change while the engine runs, and ask for per request.

Behaviour has four layers, the later winning: the command line, `POST /sim/control`, the body's top-level `"sim":
{…}`, and `x-sim-*` request headers. A `null` (or the header value `null`) means the value that the engine was started
with. Above them all stand the options of a `POST /sim/control` with `times`, until as many requests have had them.
`DELETE /sim/control` goes back to the command line.

What is wrong with an answer is an option, too: `Faults` is the whole list, and `gateway.dev.engine.faults` does them.
"""

import difflib
import re
from collections.abc import Iterable
from typing import Annotated, Any, Literal, get_args

import msgspec
from msgspec import UNSET, Meta, UnsetType

from gateway.dev.engine.errors import bad_request

HEADER_PREFIX = b"x-sim-"
TTFT_MS_MAX = 600_000
TOKENS_PER_SECOND_MAX = 1_000_000
LOAD_SLOWDOWN_MAX = 1_000
OUTPUT_TOKENS_MAX = 1_048_576
TEXT_CHARS_MAX = 262_144
PADDING_BYTES_MAX = 33_554_432
TIMES_MAX = 1_000_000

_UNKNOWN_FIELD = re.compile(r"unknown field `([^`]*)`")
_WRONG_USAGE = re.compile(r"^Invalid enum value .*\.usage`$")

UsageShape = Literal["chunk", "finish", "none", "zero"]

_Millis = Annotated[float, Meta(ge=0, le=TTFT_MS_MAX)]
_Rate = Annotated[float, Meta(ge=0, le=TOKENS_PER_SECOND_MAX)]
_Share = Annotated[float, Meta(ge=0, le=LOAD_SLOWDOWN_MAX)]
_Tokens = Annotated[int, Meta(ge=1, le=OUTPUT_TOKENS_MAX)]
_TokensOrNone = Annotated[int, Meta(ge=0, le=OUTPUT_TOKENS_MAX)]
_Status = Annotated[int, Meta(ge=400, le=599)]
_Seconds = Annotated[float, Meta(ge=0, le=86_400)]
_Chunks = Annotated[int, Meta(ge=0, le=OUTPUT_TOKENS_MAX)]
_Text = Annotated[str, Meta(max_length=TEXT_CHARS_MAX)]
_Padding = Annotated[int, Meta(ge=0, le=PADDING_BYTES_MAX)]
_PerWrite = Annotated[int, Meta(ge=1, le=OUTPUT_TOKENS_MAX)]
_Times = Annotated[int, Meta(ge=1, le=TIMES_MAX)]


class Faults(msgspec.Struct, frozen=True, kw_only=True):
    """What is wrong with an answer; the defaults are an answer as it should be.

    Before the answer: `delay_ms` until anything is sent, the head included. `reset_before`: reset the connection
    instead. `status`: answer with this error, with `retry_after` seconds in the header. `garbage`: the body, or every
    event, is no JSON; with `status`, that error's body is none.

    After that many SSE events (0: where the first one would be; an answer that is not streamed has it in its place):
    `abort_after_chunks` resets the connection, `end_after_chunks` ends the body as if it were complete (of an answer
    that is not streamed, half is sent), `stall_after_chunks` says nothing more until the client hangs up,
    `half_open_after_chunks` neither reads nor writes nor closes any more, as a peer that has lost its power.

    `usage`: in a chunk of its own, on the finish chunk (the two older dialects), left out everywhere, or all zeros.
    `no_done`: leave out a stream's last event, its end mark. `events_per_write`: so many events are held back and
    written at once, the whole stream when there are fewer. `padding_bytes`: more bytes in every event and in a body.
    `bytes_per_write`: everything in pieces of so many bytes; 0 is as it comes.
    """

    delay_ms: float = 0.0
    reset_before: bool = False
    status: int | None = None
    retry_after: float | None = None
    garbage: bool = False
    abort_after_chunks: int | None = None
    end_after_chunks: int | None = None
    stall_after_chunks: int | None = None
    half_open_after_chunks: int | None = None
    usage: UsageShape = "chunk"
    no_done: bool = False
    events_per_write: int = 1
    padding_bytes: int = 0
    bytes_per_write: int = 0

    @property
    def faultless(self) -> bool:
        """Whether nothing is wrong."""
        sound = zip(Faults.__struct_fields__, Faults.__struct_defaults__, strict=True)
        return all(getattr(self, name) == value for name, value in sound)


class Behaviour(Faults, frozen=True, kw_only=True):
    """How one request is answered: how fast, how long, and what is wrong with it.

    `ttft_ms`: to the first token, beside what its prefill costs. `tokens_per_second`: of each stream; 0 is as fast as
    it goes. `prefill_tokens_per_second`: how fast prompt tokens that are not cached are computed, one prompt after the
    other; 0 takes no time. `load_slowdown`: by which share of its pace each other running request slows this one down.
    `output_tokens`: tokens of an answer, the end token included, where `max_tokens` does not cut it.
    `reasoning_tokens`: tokens of `reasoning_content` before it. `text`: say exactly this.
    """

    ttft_ms: float = 20.0
    tokens_per_second: float = 200.0
    prefill_tokens_per_second: float = 0.0
    load_slowdown: float = 0.0
    output_tokens: int = 64
    reasoning_tokens: int = 0
    text: str | None = None

    @property
    def no_usage(self) -> bool:
        """Whether usage is left out everywhere."""
        return self.usage == "none"


class Overrides(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """The same options where each may be missing; the bounds of what a request may ask for.

    `no_usage` is another name of `usage`: true is `none`, false is `chunk`.
    """

    ttft_ms: _Millis | UnsetType | None = UNSET
    tokens_per_second: _Rate | UnsetType | None = UNSET
    prefill_tokens_per_second: _Rate | UnsetType | None = UNSET
    load_slowdown: _Share | UnsetType | None = UNSET
    output_tokens: _Tokens | UnsetType | None = UNSET
    reasoning_tokens: _TokensOrNone | UnsetType | None = UNSET
    text: _Text | UnsetType | None = UNSET
    delay_ms: _Millis | UnsetType | None = UNSET
    reset_before: bool | UnsetType | None = UNSET
    status: _Status | UnsetType | None = UNSET
    retry_after: _Seconds | UnsetType | None = UNSET
    garbage: bool | UnsetType | None = UNSET
    abort_after_chunks: _Chunks | UnsetType | None = UNSET
    end_after_chunks: _Chunks | UnsetType | None = UNSET
    stall_after_chunks: _Chunks | UnsetType | None = UNSET
    half_open_after_chunks: _Chunks | UnsetType | None = UNSET
    usage: UsageShape | UnsetType | None = UNSET
    no_usage: bool | UnsetType | None = UNSET
    no_done: bool | UnsetType | None = UNSET
    events_per_write: _PerWrite | UnsetType | None = UNSET
    padding_bytes: _Padding | UnsetType | None = UNSET
    bytes_per_write: _TokensOrNone | UnsetType | None = UNSET

    def over(self, current: Behaviour, started_with: Behaviour) -> Behaviour:
        """Return `current` with these options in their place; a `None` takes the value of `started_with`."""
        changes: dict[str, Any] = {
            name: getattr(started_with, name) if value is None else value
            for name in Behaviour.__struct_fields__
            if (value := getattr(self, name)) is not UNSET
        }
        if self.no_usage is not UNSET:
            named = {None: started_with.usage, True: "none", False: "chunk"}
            changes.setdefault("usage", named[self.no_usage])
        return msgspec.structs.replace(current, **changes) if changes else current


class Control(Overrides, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """The body of `POST /sim/control`: with `times`, the options hold for that many inference requests only."""

    times: _Times | UnsetType = UNSET


class Ordered:
    """How the process answers: its behaviour, and what was ordered for the next few requests alone."""

    def __init__(self, started_with: Behaviour) -> None:
        self._started_with = started_with
        self._lasting = started_with
        self._passing: Overrides | None = None
        self._times = 0

    @property
    def times_left(self) -> int:
        """How many of the next requests get what was ordered for them alone."""
        return self._times

    @property
    def times_options(self) -> Overrides | None:
        """What was ordered for them, `None` when there are none."""
        return self._passing

    @property
    def next(self) -> Behaviour:
        """What the next request gets that does not ask for anything itself."""
        return self._passing.over(self._lasting, self._started_with) if self._passing else self._lasting

    def change(self, control: Control) -> None:
        """Set options for all later requests, or for `times` of them: these replace the ones ordered so before."""
        if control.times is UNSET:
            self._lasting = control.over(self._lasting, self._started_with)
        else:
            options = {name: getattr(control, name) for name in Overrides.__struct_fields__}
            self._passing, self._times = Overrides(**options), control.times

    def reset(self) -> None:
        """Go back to the command line, and forget what was ordered for the next few requests."""
        self._lasting, self._passing, self._times = self._started_with, None, 0

    def take(self) -> Behaviour:
        """Return what one request gets, and count it as one of the `times`."""
        taken = self.next
        if self._passing:
            self._times -= 1
            if self._times == 0:
                self._passing = None
        return taken


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
        raise bad_request(f"x-sim header: {explained(str(error), Overrides)}") from error


def explained(message: str, kind: type) -> str:
    """Return what msgspec says of a `kind`, with what would be right where it is an option that is wrong."""
    if found := _UNKNOWN_FIELD.search(message):
        options = (Control if kind is Control else Overrides).__struct_fields__
        near = difflib.get_close_matches(found[1], options, n=1)
        guess = f"; did you mean `{near[0]}`?" if near else "."
        return f"{message}{guess} The options are {', '.join(options)}"
    if _WRONG_USAGE.search(message):
        return f"{message}; it is one of {', '.join(get_args(UsageShape))}"
    return message
