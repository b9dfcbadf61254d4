"""The spool's folder and segments on a real disk: what it takes is there, what it cannot take it says."""

from __future__ import annotations

import asyncio
import os
import shutil
import threading
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest
from structlog.testing import capture_logs

from gateway.errors import ConfigError
from gateway.observe.metrics import Metrics
from gateway.settle import spool as spool_module
from gateway.settle import spool_folder
from gateway.settle.spool import Spool, SpoolFailed, open_spool
from gateway.settle.spool_folder import LockedFolder, left_folders, make_folder, take_folder
from gateway.settle.spool_frames import read_segment
from tests.support.records import close_record, open_record
from tests.support.spool import BYTES_MAX, copy_of, unwritable
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gateway.settle.spool_frames import Record

SMALL_BYTES = 8192
WAITS_S = 0.2
"""How long what must not come first is given to come first."""


def new_spool(root: Path, bytes_max: int = BYTES_MAX) -> Spool:
    """Return a spool of its own."""
    return open_spool(root, uuid4(), bytes_max, Metrics().spool)


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    """A spool that takes a few records."""
    spool = new_spool(tmp_path / "a" / "spool", SMALL_BYTES)
    yield spool
    spool.close()


def held_in(folder: Path) -> list[Record]:
    """Return the records in a folder's segments, in order."""
    return [record for path in sorted(folder.glob("*.seg")) for record in read_segment(path.read_bytes()).records]


async def test_what_was_appended_is_on_the_disk_in_order(spool: Spool) -> None:
    opens = [open_record() for _ in range(3)]
    closes = [close_record(each) for each in opens]
    assert await spool.append(opens[:2], []) == []
    await spool.append(opens[2:], closes)
    assert held_in(spool.folder.path) == [*opens, *closes]
    assert (spool.records, spool.unsealed_records) == (6, 6)
    assert spool.bytes == sum(path.stat().st_size for path in spool.folder.path.glob("*.seg"))
    assert spool.age_s() > 0
    assert (spool.folder.path.parent.stat().st_mode & 0o777, spool.folder.path.stat().st_mode & 0o777) == (0o700, 0o700)
    assert {path.stat().st_mode & 0o777 for path in spool.folder.path.iterdir()} == {0o600}


@pytest.mark.parametrize("written_before", [False, True])
async def test_a_folder_that_somebody_has_removed_is_made_again(spool: Spool, *, written_before: bool) -> None:
    path = spool.folder.path
    if written_before:
        await spool.append([open_record()], [])
    shutil.rmtree(path.parent)
    if written_before:  # a segment that is being written is missed when it is written to
        with pytest.raises(SpoolFailed):
            await spool.append([open_record()], [])
    with capture_logs() as said:
        await spool.probe()
        record = open_record()
        await spool.append([record], [])
    assert [line["event"] for line in said if line["log_level"] == "error"] == ["spool_folder_gone"]
    assert spool.state == "ok"
    assert held_in(path) == [record]
    assert take_folder(path) is None  # it is locked again


async def test_segments_are_of_bounded_size_and_leave_as_they_are_drained(
    spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spool_module, "SEGMENT_BYTES_MAX", 1000)
    records = [open_record() for _ in range(10)]
    for record in records:
        await spool.append([record], [])
    sizes = [path.stat().st_size for path in spool.folder.path.glob("*.seg")]
    assert len(sizes) > 2
    assert max(sizes) < 2000
    spool.seal()
    drained: list[Record] = []
    while (segment := spool.oldest_sealed()) is not None:
        drained += read_segment(segment.path.read_bytes()).records
        segment.path.unlink()
        spool.drained(segment)
    assert drained == records
    assert (spool.bytes, spool.records, spool.age_s()) == (0, 0, 0.0)


async def test_a_full_spool_takes_no_more_until_it_is_drained(spool: Spool) -> None:
    while spool.bytes < SMALL_BYTES - 500:
        await spool.append([open_record()], [])
    with pytest.raises(SpoolFailed, match="spool_bytes_max"):
        await spool.append([open_record() for _ in range(5)], [])
    assert spool.state == "full"
    assert SMALL_BYTES - 500 <= spool.bytes <= SMALL_BYTES
    assert len(held_in(spool.folder.path)) == spool.records
    await spool.probe()
    assert spool.state == "ok", "there is a little room"
    spool.seal()
    segment = spool.oldest_sealed()
    assert segment is not None
    spool.drained(segment)
    await spool.append([open_record()], [])
    assert spool.state == "ok"


async def test_a_write_that_fails_half_way_leaves_nothing_half(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that fills up takes the first bytes of a group."""
    first, last = open_record(), open_record()
    await spool.append([first], [])
    write = os.write

    def short(descriptor: int, data: memoryview) -> int:
        if len(data) < 100:
            raise OSError(28, "No space left on device")
        return write(descriptor, data[:100])

    with monkeypatch.context() as patched, capture_logs() as logs:
        patched.setattr(os, "write", short)
        with pytest.raises(SpoolFailed, match="No space left"):
            await spool.append([open_record()], [])
    assert spool.state == "failing"
    assert [line["event"] for line in logs] == ["spool_away"]
    await spool.append([last], [])
    assert (spool.state, held_in(spool.folder.path)) == ("ok", [first, last])
    assert all(not read_segment(path.read_bytes()).torn for path in spool.folder.path.glob("*.seg"))


async def test_records_never_go_to_a_file_that_nobody_would_find(spool: Spool) -> None:
    await spool.append([open_record()], [])
    with unwritable(spool.folder.path):
        for _ in range(2):
            with pytest.raises(SpoolFailed):
                await spool.append([open_record()], [])
            await spool.probe()
            assert spool.state == "failing"
    await spool.probe()
    assert spool.state == "ok"
    assert spool.records == 1


async def test_a_disk_that_hangs_is_waited_for_once(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = threading.Event()
    monkeypatch.setattr(spool_module, "WRITE_S_MAX", 0.01)
    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", lambda _: answers.wait())
        with pytest.raises(SpoolFailed, match="has not answered for"):
            await spool.append([open_record()], [])
        with pytest.raises(SpoolFailed, match="has not answered yet"):
            await spool.append([open_record()], [])
        answers.set()
        stuck = spool._stuck
        assert stuck is not None
        await wait_until(stuck.done, "the disk answers")
    monkeypatch.setattr(spool_module, "WRITE_S_MAX", 10.0)
    await spool.append([open_record()], [])
    assert spool.records == 2, "what nobody could tell of is written, too"


async def test_a_folder_is_one_process_alone_until_that_ends(tmp_path: Path) -> None:
    spool = new_spool(tmp_path)
    await spool.append([open_record()], [])
    assert left_folders(tmp_path, "another") == [spool.folder.path]
    assert left_folders(tmp_path, spool.folder.path.name) == []
    assert take_folder(spool.folder.path) is None
    with capture_logs() as logs:
        spool.close()
    assert [line["event"] for line in logs] == ["spool_left"]
    folder = take_folder(spool.folder.path)
    assert folder is not None
    assert take_folder(spool.folder.path) is None, "one drains it"
    (segment,) = folder.segments()
    segment.unlink()
    assert folder.leave()
    assert left_folders(tmp_path, "another") == []
    assert take_folder(spool.folder.path) is None


async def test_a_probe_that_runs_when_it_closes_makes_no_folder_and_closes_no_lock_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool = new_spool(tmp_path)
    running, left = threading.Event(), threading.Event()
    keep, leave = spool._keep_folder, spool.folder.leave

    def keep_late() -> None:
        running.set()
        left.wait(WAITS_S)
        keep()

    def leave_seen(_folder: LockedFolder) -> bool:
        try:
            return leave()
        finally:
            left.set()

    monkeypatch.setattr(spool, "_keep_folder", keep_late)
    monkeypatch.setattr(LockedFolder, "leave", leave_seen)
    closed: list[int] = []
    close, lock = os.close, spool.folder.lock

    def close_seen(descriptor: int) -> None:
        closed.append(descriptor)
        close(descriptor)

    monkeypatch.setattr(os, "close", close_seen)
    probing = asyncio.ensure_future(spool.probe())
    await wait_until(running.is_set, "it is probed")
    await asyncio.to_thread(spool.close)
    await probing
    assert closed == [lock]
    assert left_folders(tmp_path, "another") == [], "it was made again"


async def test_a_copied_folder_is_nobodys(tmp_path: Path) -> None:
    spool = new_spool(tmp_path)
    await spool.append([open_record()], [])
    copied = take_folder(copy_of(spool.folder.path, tmp_path))
    assert copied is not None
    assert not copied.leave()
    spool.close()


def test_an_empty_spool_leaves_nothing_behind(tmp_path: Path) -> None:
    new_spool(tmp_path).close()
    assert list(tmp_path.iterdir()) == []


def test_what_a_process_that_died_early_left_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = make_folder(tmp_path, "half")
    half = made.path.rename(tmp_path / ".new-half")
    os.close(made.lock)
    assert left_folders(tmp_path, "own") == []
    assert half.exists(), "it may be being made"
    monkeypatch.setattr(spool_folder, "ABANDONED_S", -1.0)
    living = make_folder(tmp_path, "living")
    assert left_folders(tmp_path, "own") == [living.path]
    assert not half.exists()
    assert living.leave()


def test_a_folder_that_is_left_cannot_be_taken_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make_folder(tmp_path, "leaving")
    remove = Path.rmdir

    def remove_late(path: Path) -> None:
        assert take_folder(folder.path) is None
        remove(path)

    monkeypatch.setattr(Path, "rmdir", remove_late)
    assert folder.leave()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("place", ["file", "below a file"])
def test_a_folder_that_cannot_be_used_is_told_with_what_to_do(tmp_path: Path, place: str) -> None:
    (file := tmp_path / "file").write_text("")
    with pytest.raises(ConfigError) as error:
        new_spool(file if place == "file" else file / "spool")
    assert "PENSTOCK_SPOOL_DIR" in str(error.value)
    assert str(file) in str(error.value)


async def test_the_event_loop_turns_while_the_disk_works(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    turned = threading.Event()

    def sync(_: int) -> None:
        if not turned.wait(10):
            raise OSError("nobody else had a turn")

    monkeypatch.setattr(os, "fsync", sync)
    appending = asyncio.ensure_future(spool.append([open_record()], []))
    await asyncio.sleep(0)
    turned.set()
    assert await appending == []
