"""Installing the engines: what is told when something is missing. Needs none of them."""

from __future__ import annotations

import shutil
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from tests.real_engine.engines import KINDS, EngineMissing
from tests.support.venvs import Environment

if TYPE_CHECKING:
    from pathlib import Path

COMPILED, LOADED = KINDS


def test_a_missing_compiler_is_told_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    missing = replace(COMPILED, environment=Environment("nowhere", ()))
    said: list[str] = []
    with pytest.raises(EngineMissing, match=r"'no-such-compiler' is missing.*apt-get install g\+\+"):
        missing.prepare(said.append)
    assert said == []


def test_a_failed_installation_is_told(tmp_path: Path) -> None:
    lock = tmp_path / "lock.txt"
    lock.write_text("./no-such-folder\n")
    broken = Environment("nowhere", (str(lock.with_suffix("")),))
    said: list[str] = []
    try:
        with pytest.raises(EngineMissing, match="could not be installed"):
            replace(LOADED, environment=broken).prepare(said.append)
        assert len(said) == 1
        assert not broken.is_made(), "the next run tries again"
    finally:
        shutil.rmtree(broken.folder)
