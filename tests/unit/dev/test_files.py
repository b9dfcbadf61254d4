"""Private files appear whole and private, and damaged ones read as nothing."""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING

import pytest

from gateway.dev.files import FILE_BYTES_MAX, read_json, write_private, write_private_json

if TYPE_CHECKING:
    from pathlib import Path


def test_json_comes_back_and_only_its_owner_reads_it(tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    file.write_text("{}")
    file.chmod(0o644)
    write_private_json(file, {"key": "schlüssel", "port": 1})
    assert read_json(file) == {"key": "schlüssel", "port": 1}
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [file]


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    file = tmp_path / "text"
    write_private(file, "old")
    with pytest.raises(UnicodeEncodeError):
        write_private(file, "new \ud800")
    assert file.read_text() == "old"
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"\xff\xfe", b" " * (FILE_BYTES_MAX + 1)])
def test_a_damaged_file_reads_as_nothing(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "damaged.json"
    file.write_bytes(content)
    assert read_json(file) == {}


def test_a_missing_file_reads_as_nothing(tmp_path: Path) -> None:
    assert read_json(tmp_path / "missing.json") == {}
