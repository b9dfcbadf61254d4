"""The spool's files: what was written is read, wherever a file is cut and whichever of its bytes is damaged."""

from __future__ import annotations

import datetime as dt
from typing import Any
from uuid import UUID

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.settle import spool_frames
from gateway.settle.records import CLOSE_TYPES, OPEN_TYPES, CloseRecord, OpenRecord
from gateway.settle.spool_frames import ForeignSegment, Record, encode, header, read_segment
from tests.support.records import close_record, open_record

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
VALUES = {
    "uuid": st.uuids(),
    "timestamptz": st.datetimes(dt.datetime(1970, 1, 1), dt.datetime(2300, 1, 1), timezones=st.just(dt.UTC)),  # noqa: DTZ001 - hypothesis adds the zone
    "text": texts,
    "bool": st.booleans(),
    "smallint": st.integers(-(2**15), 2**15 - 1),
    "integer": st.integers(-(2**31), 2**31 - 1),
    "bigint": st.integers(-(2**63), 2**63 - 1),
    "numeric": st.integers(-(10**38), 10**38),
}


def records_of(record: Record, types: tuple[str, ...]) -> st.SearchStrategy[Record]:
    """Records like this one, some columns of which hold nothing, or anything of their types."""
    changes = {name: st.none() | VALUES[type_] for name, type_ in zip(record._fields, types, strict=True)}
    some = st.lists(st.sampled_from(record._fields), max_size=3, unique=True)

    def replaced(fields: dict[str, Any]) -> Record:
        return record._replace(**fields)

    return some.flatmap(lambda names: st.fixed_dictionaries({name: changes[name] for name in names})).map(replaced)


OPENED = open_record()
records = records_of(OPENED, OPEN_TYPES) | records_of(close_record(OPENED), CLOSE_TYPES)


def segment(written: list[Record]) -> tuple[bytes, list[int]]:
    """Return a segment's bytes, and where its frames end."""
    frames, refused = encode(written)
    assert refused == []
    ends = [len(header())]
    for frame in frames:
        ends.append(ends[-1] + len(frame))
    return header() + b"".join(frames), ends


@given(st.lists(records, max_size=5))
def test_what_is_written_is_read(written: list[Record]) -> None:
    contents = read_segment(segment(written)[0])
    assert (contents.records, contents.torn, contents.broken) == (written, False, 0)


@given(st.lists(records, min_size=1, max_size=4), st.data())
def test_a_file_cut_anywhere_loses_only_the_frame_that_was_cut(written: list[Record], data: st.DataObject) -> None:
    whole, ends = segment(written)
    at = data.draw(st.integers(0, len(whole)))
    contents = read_segment(whole[:at])
    assert contents.records == written[: sum(end <= at for end in ends[1:])]
    assert contents.torn == (at not in ends)
    assert contents.broken == 0, "a kill is no damage"


@given(st.lists(records, min_size=1, max_size=4), st.integers(1, 5000))
def test_a_tail_of_zeros_is_what_a_disk_never_got(written: list[Record], zeros: int) -> None:
    contents = read_segment(segment(written)[0] + bytes(zeros))
    assert (contents.records, contents.torn, contents.broken) == (written, True, 0)


@given(st.lists(records, min_size=2, max_size=5), st.data())
def test_a_damaged_byte_costs_only_its_own_frame_and_is_told(written: list[Record], data: st.DataObject) -> None:
    whole, ends = segment(written)
    at = data.draw(st.integers(ends[0], ends[-2] - 1))  # of the last frame nobody can tell damage from a cut
    damaged = bytearray(whole)
    damaged[at] ^= data.draw(st.integers(1, 255))
    hit = next(number for number, end in enumerate(ends[1:]) if at < end)
    contents = read_segment(bytes(damaged))
    assert contents.records == written[:hit] + written[hit + 1 :]
    assert contents.broken == 1


@given(st.data())
def test_a_damaged_head_loses_no_record_unless_it_is_another_release(data: st.DataObject) -> None:
    written: list[Record] = [open_record(), close_record(open_record())]
    whole, ends = segment(written)
    damaged = bytearray(whole)
    damaged[data.draw(st.integers(0, ends[0] - 1))] ^= data.draw(st.integers(1, 255))
    try:
        contents = read_segment(bytes(damaged))
    except ForeignSegment:
        assert damaged[4] != spool_frames.VERSION
    else:
        assert contents.records == written
        assert contents.broken == 1


@given(st.binary(max_size=300))
def test_any_bytes_are_read_to_an_end(garbage: bytes) -> None:
    for data in (garbage, header() + garbage):
        try:
            contents = read_segment(data)
        except ForeignSegment:
            continue
        assert contents.records == []


def test_a_record_that_cannot_be_written_down_costs_no_other() -> None:
    good = open_record()
    frames, refused = encode([good, good._replace(model=object()), good._replace(model="x" * 70_000)])  # type: ignore[arg-type] # that is the fault
    assert len(frames) == 1
    assert [record.event_id for record, _ in refused] == [good.event_id] * 2
    assert all(reason for _, reason in refused)


def with_fields(opened: tuple[str, ...]) -> bytes:
    """Return a segment of a release whose OPEN records have these fields."""
    encoder = msgspec.msgpack.Encoder(uuid_format="bytes")
    schema = encoder.encode({spool_frames.OPEN: opened, spool_frames.CLOSE: CloseRecord._fields})
    row = open_record(estimate_cost_pico_usd=1)._asdict() | {"invented": 1}
    payload = encoder.encode((spool_frames.OPEN, [row[name] for name in opened]))
    version = bytes((spool_frames.VERSION,))
    return spool_frames.MAGIC + version + spool_frames._frame(schema) + spool_frames._frame(payload)


def test_what_another_release_wrote_is_read_by_name_or_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    names = OpenRecord._fields
    (read,) = read_segment(with_fields(tuple(reversed(names)))).records
    assert isinstance(read.event_id, UUID)
    with pytest.raises(ForeignSegment, match="does not know: invented"):
        read_segment(with_fields((*names, "invented")))
    with pytest.raises(ForeignSegment, match="needs: model"):
        read_segment(with_fields(tuple(name for name in names if name != "model")))
    (before,) = read_segment(with_fields(tuple(name for name in names if name != "session"))).records
    assert before.session is None, "openings had no session once"
    monkeypatch.setattr(OpenRecord, "_field_defaults", {"model": "unnamed"})
    (old,) = read_segment(with_fields(tuple(name for name in names if name != "model"))).records
    assert old.model == "unnamed"
    with pytest.raises(ForeignSegment, match="version 2"):
        read_segment(spool_frames.MAGIC + b"\x02")
