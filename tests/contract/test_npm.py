"""Where the clients from npm come from, and what is said when they cannot come."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.support.npm import PINNED, NpmMissing, installed, unlocked_binaries

if TYPE_CHECKING:
    from pathlib import Path


def test_a_missing_npm_is_told_with_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("tests.support.npm.WHEEL_PROGRAMS", tmp_path)
    with pytest.raises(NpmMissing, match=r"npm is missing: .* Install Node\.js 22"):
        installed()


def test_every_package_of_the_lock_has_a_hash() -> None:
    packages = json.loads((PINNED / "package-lock.json").read_text())["packages"]
    assert [name for name, about in packages.items() if name and not about["integrity"].startswith("sha512-")] == []
    wanted = json.loads((PINNED / "package.json").read_text())["dependencies"]
    assert {name: packages[f"node_modules/{name}"]["version"] for name in wanted} == wanted


@pytest.mark.parametrize(
    ("system", "processor", "package"),
    [
        ("linux", "x86_64", None),
        ("linux", "aarch64", "opencode-linux-arm64"),
        ("darwin", "arm64", "opencode-darwin-arm64"),
        ("win32", "AMD64", "opencode-windows-x64"),
        ("plan9", "mips", None),
    ],
)
def test_a_platform_that_the_lock_lacks_gets_opencode_in_the_same_version(
    system: str, processor: str, package: str | None
) -> None:
    lock = (PINNED / "package-lock.json").read_text()
    version = json.loads(lock)["packages"]["node_modules/opencode-ai"]["version"]
    assert unlocked_binaries(lock, system, processor) == ([] if package is None else [f"{package}@{version}"])
