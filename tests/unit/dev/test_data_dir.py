"""One `penstock dev` per folder, and a killed one is noticed."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

import pytest

from gateway.dev.data_dir import LOCK_FILE, locked_data_dir
from gateway.dev.errors import DevServerError

if TYPE_CHECKING:
    from pathlib import Path


def test_a_second_user_is_refused_and_told_who_holds_it(tmp_path: Path) -> None:
    with locked_data_dir(tmp_path / "data") as first:
        assert first.path == tmp_path / "data"
        assert not first.left_behind
        with pytest.raises(DevServerError, match=rf"process {os.getpid()}\) uses"), locked_data_dir(tmp_path / "data"):
            pass
    with locked_data_dir(tmp_path / "data") as again:
        assert not again.left_behind


def test_a_killed_user_leaves_its_number_behind(tmp_path: Path) -> None:
    (tmp_path / LOCK_FILE).write_text("4711\n")
    with locked_data_dir(tmp_path) as data_dir:
        assert data_dir.left_behind


def test_the_lock_is_private_and_the_folder_can_be_passed_through(tmp_path: Path) -> None:
    with locked_data_dir(tmp_path / "data") as data_dir:
        assert stat.S_IMODE(data_dir.path.stat().st_mode) == 0o711
        assert stat.S_IMODE((data_dir.path / LOCK_FILE).stat().st_mode) == 0o600


def test_a_folder_that_cannot_be_made_is_explained(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DevServerError, match="--data-dir"), locked_data_dir(tmp_path / "file" / "data"):
        pass
