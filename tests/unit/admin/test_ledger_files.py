"""A file of an export has its name only when it is whole."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from gateway.admin.ledger_export import parse_cursor
from gateway.admin.ledger_files import whole_file
from gateway.errors import InvalidRequest

if TYPE_CHECKING:
    from pathlib import Path


def test_a_file_that_is_begun_and_not_ended_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "bill.csv"
    path.write_text("of before")

    def fail() -> None:
        with whole_file(path) as file:
            file.write(b"half of")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert path.read_text() == "of before"
    with whole_file(path) as file:
        file.write(b"all of it")
        assert path.read_text() == "of before"
    assert path.read_text() == "all of it"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("name", "reason"), [("", "Is a directory"), ("missing/bill.csv", "No such file or directory")]
)
def test_where_no_file_can_be_is_told_at_once_by_the_name_that_was_asked_for(
    tmp_path: Path, name: str, reason: str
) -> None:
    path = tmp_path / name
    with pytest.raises(OSError, match=reason) as raised, whole_file(path):
        pytest.fail("the body began")
    assert raised.value.filename == str(path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("text", ["", "-1", "1e3", "x", "9" * 30, "\N{ARABIC-INDIC DIGIT ONE}"])
def test_a_cursor_is_a_whole_number(text: str) -> None:
    with pytest.raises(InvalidRequest, match="after must be the cursor"):
        parse_cursor(text)
    assert parse_cursor("12345") == 12345
    assert parse_cursor(None) == 0
