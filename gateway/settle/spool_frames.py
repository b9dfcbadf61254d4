"""The spool's file format: what a segment file holds, written and read without touching a disk.

A segment is `PSTS`, a version byte, and frames: length and CRC-32 (four bytes each, little-endian, the CRC over length
and payload), then the payload in MessagePack. The first frame names the fields of both records, so that a release that
adds a field reads what the one before has left; the others are `[kind, values]`. A file that ends within a frame was
cut by the end of its process: nobody was told that this frame is safe. Any other frame that does not fit its CRC is
damage.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias
from uuid import UUID
from zlib import crc32

import msgspec

from gateway.settle.records import CLOSE_TYPES, OPEN_TYPES, CloseRecord, OpenRecord

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

Record: TypeAlias = OpenRecord | CloseRecord

MAGIC = b"PSTS"
VERSION = 1
FRAME_HEAD_BYTES = 8
FRAME_BYTES_MAX = 64 * 1024
"""Payload of one frame: far more than a record with the longest names."""

OPEN, CLOSE = 1, 2
_SCHEMA_FIELDS = {OPEN: OpenRecord._fields, CLOSE: CloseRecord._fields}
_WHOLE_NUMBERS = frozenset({"bigint", "integer", "smallint", "numeric"})
_UINT64_MAX, _INT64_MIN = 2**64 - 1, -(2**63)

# How the payload of a record begins: an array of two, its kind, an array. Only a hint where to look for the next frame.
_RECORD_START = re.compile(rb"\x92[\x01\x02][\x90-\x9f\xdc\xdd]")


class ForeignSegment(Exception):
    """Written by another release in a way that this one cannot read: to be left for one that can."""


@dataclass(slots=True)
class SegmentContents:
    """What was read from a segment, in the order in which it was written."""

    records: list[Record] = field(default_factory=list)
    torn: bool = False
    """Whether the file ends within a frame."""
    broken: int = 0
    """Damaged places that were passed over: each may have been one record or several."""


def header() -> bytes:
    """Return what a segment begins with."""
    return MAGIC + bytes((VERSION,)) + _frame(_encoder().encode(_SCHEMA_FIELDS))


def encode(records: Iterable[Record]) -> tuple[list[bytes], list[tuple[Record, str]]]:
    """Return the frames of `records`, and those that cannot be written down, with the reason."""
    encoder = _encoder()
    frames: list[bytes] = []
    refused: list[tuple[Record, str]] = []
    for record in records:
        kind = OPEN if isinstance(record, OpenRecord) else CLOSE
        try:
            try:
                payload = encoder.encode((kind, record))
            except OverflowError:  # MessagePack ends at 64 bits, money and what Postgres may refuse does not
                payload = encoder.encode((kind, [_within_64_bits(value) for value in record]))
        except (TypeError, ValueError, OverflowError) as error:
            refused.append((record, str(error)))
            continue
        if len(payload) > FRAME_BYTES_MAX:
            refused.append((record, f"longer than {FRAME_BYTES_MAX} bytes"))
            continue
        frames.append(_frame(payload))
    return frames, refused


def read_segment(data: bytes) -> SegmentContents:
    """Return all records that can be read from a segment's bytes, whatever they are.

    Raises:
        ForeignSegment: of another version, or with fields that this release does not know or cannot do without.
    """
    contents = SegmentContents()
    reader = _Reader(_SCHEMA_FIELDS)
    at = len(MAGIC) + 1
    if data[: len(MAGIC)] != MAGIC[: len(data)]:
        contents.broken += 1  # then the frames that can be found are taken for this release's
        at = _next_frame(data, 0) or len(data)
    elif len(data) < at:
        contents.torn = True
        return contents
    elif data[at - 1] != VERSION:
        raise ForeignSegment(f"of version {data[at - 1]}, this release reads {VERSION}")
    else:
        schema = _payload_at(data, at)
        if schema is not None:
            reader = _Reader(_schema(schema))
            at += FRAME_HEAD_BYTES + len(schema)
    contents.torn = at == len(MAGIC) + 1 == len(data)
    while at < len(data):
        payload = _payload_at(data, at)
        if payload is not None:
            record = reader.record(payload)
            if record is None:
                contents.broken += 1
            else:
                contents.records.append(record)
            at += FRAME_HEAD_BYTES + len(payload)
            continue
        found = _next_frame(data, at + 1)
        if found is None and _ends_within_frame(data, at):
            contents.torn = True
        else:
            contents.broken += 1
        at = len(data) if found is None else found
    return contents


class _Reader:
    """Makes records from the values of a segment's fields."""

    def __init__(self, fields: dict[int, tuple[str, ...]]) -> None:
        self._plans = {
            kind: _plan(record, types, fields[kind])
            for kind, record, types in ((OPEN, OpenRecord, OPEN_TYPES), (CLOSE, CloseRecord, CLOSE_TYPES))
        }

    def record(self, payload: bytes) -> Record | None:
        """Return the record that a payload holds, None when it holds something else."""
        try:
            kind, values = msgspec.msgpack.decode(payload)
            plan, count, defaults = self._plans[kind]
            if len(values) != count:
                return None
            found = {name: _value(values[position], type_) for name, position, type_ in plan}
        except (msgspec.DecodeError, TypeError, ValueError, KeyError):
            return None
        return OpenRecord(**defaults, **found) if kind == OPEN else CloseRecord(**defaults, **found)


def _plan(
    record: type[Record], types: Sequence[str], fields: tuple[str, ...]
) -> tuple[list[tuple[str, int, str]], int, dict[str, Any]]:
    """Return of each field its name, position and type, how many values there must be, and what is not among them."""
    known = dict(zip(record._fields, types, strict=True))
    if strange := [name for name in fields if name not in known]:
        raise ForeignSegment(f"with fields that this release does not know: {', '.join(strange)}")
    missing = [name for name in record._fields if name not in fields]
    if needed := [name for name in missing if name not in record._field_defaults]:
        raise ForeignSegment(f"without fields that this release needs: {', '.join(needed)}")
    plan = [(name, position, known[name]) for position, name in enumerate(fields)]
    return plan, len(fields), {name: record._field_defaults[name] for name in missing}


def _schema(payload: bytes) -> dict[int, tuple[str, ...]]:
    try:
        return msgspec.msgpack.decode(payload, type=dict[int, tuple[str, ...]])
    except msgspec.DecodeError as error:
        raise ForeignSegment(f"with another kind of head: {error}") from None


def _encoder() -> msgspec.msgpack.Encoder:
    return msgspec.msgpack.Encoder(uuid_format="bytes")


def _frame(payload: bytes) -> bytes:
    length = len(payload).to_bytes(4, "little")
    return length + crc32(payload, crc32(length)).to_bytes(4, "little") + payload


def _payload_at(data: bytes, at: int) -> bytes | None:
    """Return the payload of the frame that begins at `at`, None when no whole and sound one does."""
    size = int.from_bytes(data[at : at + 4], "little")
    start = at + FRAME_HEAD_BYTES
    if not 0 < size <= FRAME_BYTES_MAX or start + size > len(data):
        return None
    payload = data[start : start + size]
    sound = crc32(payload, crc32(data[at : at + 4])) == int.from_bytes(data[at + 4 : start], "little")
    return payload if sound else None


def _next_frame(data: bytes, start: int) -> int | None:
    """Return where the next sound frame of a record begins, at `start` or later."""
    for match in _RECORD_START.finditer(data, start + FRAME_HEAD_BYTES):
        at = match.start() - FRAME_HEAD_BYTES
        if _payload_at(data, at) is not None:
            return at
    return None


def _ends_within_frame(data: bytes, at: int) -> bool:
    """Whether what begins at `at` was cut off: it is shorter than it says, or the disk never got it (zeros)."""
    rest = data[at:]
    if len(rest) < FRAME_HEAD_BYTES or not any(rest):
        return True
    size = int.from_bytes(rest[:4], "little")
    return 0 < size <= FRAME_BYTES_MAX and FRAME_HEAD_BYTES + size > len(rest)


def _within_64_bits(value: object) -> object:
    outside = isinstance(value, int) and not _INT64_MIN <= value <= _UINT64_MAX
    return str(value) if outside else value


def _value(value: Any, type_: str) -> Any:
    """Return a value as the record has it."""
    if type_ == "uuid" and value is not None:
        return UUID(bytes=value)
    if type_ in _WHOLE_NUMBERS and isinstance(value, str):
        return int(value)
    return value
