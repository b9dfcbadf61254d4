"""Where `penstock login` keeps what it was given, and who can read it."""

from __future__ import annotations

import datetime as dt
import stat
from typing import TYPE_CHECKING

import pytest

from gateway.cli.profiles import Profile, all_profiles, current_profile, forget, keep, profile_of, profiles_file
from gateway.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

ONE, OTHER = "https://one.example", "https://other.example"
SECRET = "adm-pst-secret"


@pytest.fixture(autouse=True)
def own_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))


def test_the_last_login_is_the_current_profile_and_the_others_stay() -> None:
    assert current_profile() is None
    until = dt.datetime(2026, 8, 1, tzinfo=dt.UTC)
    keep(Profile(ONE, SECRET, until, signed_in=True))
    keep(Profile(OTHER, "adm-pst-other"))
    current = current_profile()
    assert current is not None
    assert current.url == OTHER
    assert profile_of(ONE) == Profile(ONE, SECRET, until, signed_in=True)
    assert set(all_profiles()) == {ONE, OTHER}
    forget(OTHER)
    assert (current_profile(), set(all_profiles())) == (None, {ONE})
    forget(OTHER)  # again: nothing happens


def test_nobody_else_can_read_it_and_no_repr_shows_it() -> None:
    keep(Profile(ONE, SECRET))
    assert stat.S_IMODE(profiles_file().stat().st_mode) == 0o600
    assert stat.S_IMODE(profiles_file().parent.stat().st_mode) == 0o700
    profiles_file().chmod(0o644)
    keep(Profile(OTHER, SECRET))  # whatever its mode has become
    assert stat.S_IMODE(profiles_file().stat().st_mode) == 0o600
    assert SECRET not in repr(profile_of(ONE))


@pytest.mark.parametrize("damaged", [b"{", b'{"profiles": {"x": {"url": "x", "credential": 5}}}', b"\xff", b""])
def test_a_damaged_file_is_told_without_its_content(damaged: bytes) -> None:
    keep(Profile(ONE, SECRET))
    profiles_file().write_bytes(damaged)
    with pytest.raises(ConfigError, match=r"profiles\.json is damaged: remove it, and log in again$"):
        current_profile()


@pytest.mark.parametrize(("expires_s", "margin_s", "expired"), [(10, 0, False), (0, 0, True), (10, 30, True)])
def test_it_knows_when_it_is_over(expires_s: int, margin_s: int, expired: bool) -> None:  # noqa: FBT001 - a parameter
    now = dt.datetime(2026, 8, 1, tzinfo=dt.UTC)
    profile = Profile(ONE, SECRET, now + dt.timedelta(seconds=expires_s))
    assert profile.expired(now, margin=dt.timedelta(seconds=margin_s)) is expired
    assert not Profile(ONE, SECRET).expired(now)
