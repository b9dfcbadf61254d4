"""Reads a request: a bounded body in bounded time, decoded at its top level only.

Keys that differ only by case are refused and doubled keys are collapsed by the decoding, so gateway and engine can
never read two different requests. Values that the gateway does not own stay the bytes they came in.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol

import msgspec

from gateway.domain.call import OUTPUT_FIELDS, Call, Endpoint, Fields
from gateway.edge.bounds import cap_output, choices_of
from gateway.edge.fields import read_boolean, read_string
from gateway.edge.images import refuse_addresses
from gateway.edge.inline import inline_sources
from gateway.edge.stateless import STATEFUL, keep_stateless
from gateway.edge.surrogates import lone_surrogate
from gateway.errors import BodyTooLarge, InvalidRequest, ModelNotFound, RequestTimeout, UnsupportedEncoding

if TYPE_CHECKING:
    from uuid import UUID

    from gateway.domain.config import ModelConfig
    from gateway.edge.asgi import Message, Receive

MODEL_CHARS_MAX = 256
SESSION_CHARS_MAX = 128

OWNED = STATEFUL | frozenset({"model", "messages", "prompt", "input", "stream", "stream_options", "n", *OUTPUT_FIELDS})
"""Fields that the gateway reads or overwrites. Some engines find them in any spelling, so only their own may occur."""

_decode_fields = msgspec.json.Decoder(Fields).decode
_INCLUDE_USAGE = msgspec.Raw(b'{"include_usage":true}')

_SESSION_HEADERS = (b"x-session-id", b"x-session-affinity", b"x-claude-code-session-id")
_SHAPES = {
    "messages": (b"[", "a list of messages"),
    "prompt": (b'["', "a string or a list"),
    "input": (b'["', "a string or a list"),
}


_COMPLETIONS = frozenset({Endpoint.CHAT_COMPLETIONS, Endpoint.COMPLETIONS, Endpoint.EMBEDDINGS})
"""OpenAI's older endpoints, which have `n` and say usage in a stream only when asked."""


class Disconnected(Exception):
    """The client hung up before its request was complete; there is nobody to answer."""


async def read_body(
    receive: Receive, headers: dict[bytes, bytes], *, arrived: bool, bytes_max: int, timeout_s: float
) -> bytes:
    """Return the whole body. `arrived` tells that all of it is there, so that no timer is needed.

    Raises:
        BodyTooLarge: it is larger than `bytes_max`, said or sent.
        RequestTimeout: it did not arrive within `timeout_s`.
        InvalidRequest: the length that was said is no number.
        UnsupportedEncoding: it is compressed.
        Disconnected: the client hung up.
    """
    encoding = headers.get(b"content-encoding")
    if encoding is not None and encoding.lower() != b"identity":
        raise UnsupportedEncoding("the body must not be compressed: send it as it is, without 'content-encoding'")
    said = _said_length(headers)
    if said is not None and said > bytes_max:
        raise _too_large(bytes_max)
    if arrived:
        body = _piece(await receive())
        if len(body) > bytes_max:
            raise _too_large(bytes_max)
        return body
    pieces: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(timeout_s):
            while True:
                message = await receive()
                pieces.append(_piece(message))
                size += len(pieces[-1])
                if size > bytes_max:
                    raise _too_large(bytes_max)
                if not message.get("more_body", False):
                    return b"".join(pieces)
    except TimeoutError:
        raise RequestTimeout("the body did not arrive in time") from None


def _piece(message: Message) -> bytes:
    if message["type"] == "http.disconnect":
        raise Disconnected
    piece: bytes = message.get("body", b"")
    return piece


def _too_large(bytes_max: int) -> BodyTooLarge:
    return BodyTooLarge(f"the body is larger than {bytes_max} bytes")


def _said_length(headers: dict[bytes, bytes]) -> int | None:
    said = headers.get(b"content-length")
    if said is None:
        return None
    if not said.isdigit() or len(said) > 18:
        raise InvalidRequest("content-length is not a number")
    return int(said)


class FindsModels(Protocol):
    """The models by name and alias."""

    def get(self, name: str, /) -> ModelConfig | None: ...


def parse_call(
    body: bytes,
    endpoint: Endpoint,
    headers: dict[bytes, bytes],
    models: FindsModels,
    *,
    event_id: UUID,
    started_s: float,
) -> Call:
    """Return the call that a body describes, with the gateway's own fields set.

    Raises:
        InvalidRequest: not a JSON object, keys that differ only by case, or a field of a wrong type; names the field.
        ModelNotFound: no model or alias has this name.
    """
    fields = _fields(body)
    name = read_string(fields, "model")
    if name is None:
        raise InvalidRequest("'model' is missing", param="model")
    model = models.get(name) if len(name) <= MODEL_CHARS_MAX else None
    if model is None:
        raise ModelNotFound(f"there is no model '{name[:MODEL_CHARS_MAX]}'; GET /v1/models lists yours", param="model")
    media = refuse_addresses(fields, model.media_hosts)
    if endpoint is Endpoint.MESSAGES:
        media = inline_sources(fields)
    _check_required(fields, endpoint)
    stream = read_boolean(fields, "stream") and endpoint.generates
    usage_wanted, choices = False, 1
    if endpoint in _COMPLETIONS:
        choices = choices_of(fields, endpoint)
        if stream:
            usage_wanted = _ask_for_usage(fields)
        elif "stream_options" in fields and bytes(fields["stream_options"]) == b"null":
            del fields["stream_options"]
    elif endpoint is Endpoint.RESPONSES:
        keep_stateless(fields)
    return Call(
        event_id=event_id,
        endpoint=endpoint,
        requested_model=name,
        model=model,
        fields=fields,
        body=body,
        stream=stream,
        usage_wanted=usage_wanted,
        output_max=cap_output(fields, model, endpoint) if endpoint.generates else None,
        choices=choices,
        session=_session(fields, headers),
        started_s=started_s,
        media=media,
    )


def _fields(body: bytes) -> Fields:
    try:
        fields = _decode_fields(body)
    except msgspec.ValidationError:
        raise InvalidRequest("the body must be a JSON object") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        reason = str(error)[:200]
        if (half := lone_surrogate(body, reason)) is not None:
            reason = f"a {half} escape stands alone: the text was cut inside a character"
        raise InvalidRequest(f"the body is not valid JSON: {reason}") from None
    folded = {key.casefold(): key for key in fields}
    if folded.keys() != fields.keys():
        _check_spelling(fields, folded)
    return fields


def _check_spelling(fields: Fields, folded: dict[str, str]) -> None:
    for key in fields:
        twin = folded[key.casefold()]
        if twin != key:
            raise InvalidRequest(f"'{key[:100]}' and '{twin[:100]}' differ only by case", param=twin[:100])
    for name in OWNED & folded.keys():
        if (key := folded[name]) != name:
            raise InvalidRequest(f"'{key}' must be written '{name}'", param=key)


def _check_required(fields: Fields, endpoint: Endpoint) -> None:
    name = endpoint.prompt_field
    raw = fields.get(name)
    if raw is None:
        raise InvalidRequest(f"'{name}' is missing", param=name)
    first_bytes, expected = _SHAPES[name]
    if bytes(raw)[:1] not in {first_bytes[i : i + 1] for i in range(len(first_bytes))}:
        raise InvalidRequest(f"'{name}' must be {expected}", param=name)


def _ask_for_usage(fields: Fields) -> bool:
    """Ask the engine for usage, whatever the client wants, and return whether the client wanted it."""
    raw = fields.get("stream_options")
    if raw is None or bytes(raw) == b"null":
        fields["stream_options"] = _INCLUDE_USAGE
        return False
    try:
        options = _decode_fields(raw)
        wanted = bool(msgspec.json.decode(options.get("include_usage", b"false"), type=bool | None))
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise InvalidRequest("'stream_options' must be an object", param="stream_options") from None
    if not wanted:
        options["include_usage"] = msgspec.Raw(b"true")
        # Engines heed it only together with include_usage, which this client did not ask for.
        options.pop("continuous_usage_stats", None)
        fields["stream_options"] = msgspec.Raw(msgspec.json.encode(options))
    return wanted


def _session(fields: Fields, headers: dict[bytes, bytes]) -> str | None:
    """Return what ties the turns of a conversation together, as printable ASCII, None when nothing does."""
    for name in _SESSION_HEADERS:
        if name in headers:
            return _printable(headers[name].decode("latin-1"))
    raw = fields.get("prompt_cache_key")
    if raw is None or bytes(raw[:1] if isinstance(raw, bytes) else bytes(raw)[:1]) != b'"':
        return None
    return _printable(read_string(fields, "prompt_cache_key") or "")


def _printable(text: str) -> str | None:
    return "".join(c for c in text[:SESSION_CHARS_MAX] if " " <= c <= "~") or None
