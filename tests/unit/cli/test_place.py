"""Which place a command works on, and which credential is shown where."""

from __future__ import annotations

import datetime as dt
import json
import os
from typing import TYPE_CHECKING

import pytest

from gateway.cli.place import Chosen, Local, Remote, find_place
from gateway.cli.profiles import Profile, keep
from gateway.errors import ConfigError, InvalidRequest

if TYPE_CHECKING:
    from pathlib import Path

ONE, OTHER = "https://one.example", "https://other.example:8443"
DSN = "postgresql://someone:hunter2@127.0.0.1/penstock"


@pytest.fixture(autouse=True)
def nothing_is_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in os.environ if name.startswith("PENSTOCK_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.chdir(tmp_path)


def find(**chosen: str | bool) -> Remote | Local:
    notes.clear()
    return find_place(Chosen(**chosen), note=notes.append)  # type: ignore[arg-type] # each is of its own type


notes: list[str] = []


def test_what_a_call_says_goes_before_the_environment_before_dev_before_a_login(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=r"penstock login URL.*set PENSTOCK_URL.*set PENSTOCK_POSTGRES_DSN"):
        find()
    keep(Profile(ONE, "adm-pst-one"))
    assert find() == Remote(ONE, "adm-pst-one", "penstock login")
    (tmp_path / ".penstock").mkdir()
    (tmp_path / ".penstock" / "dev.json").write_text(json.dumps({"pid": os.getpid(), "postgres_dsn": DSN}))
    here = find()
    assert isinstance(here, Local)
    assert (here.address, here.found) == (DSN, "the `penstock dev` that runs here")
    monkeypatch.setenv("PENSTOCK_POSTGRES_DSN", DSN)
    assert find().found == "PENSTOCK_POSTGRES_DSN"
    assert notes == []
    monkeypatch.setenv("PENSTOCK_URL", f"{OTHER}/")
    monkeypatch.setenv("PENSTOCK_ADMIN_KEY", "adm-pst-other")
    assert find() == Remote(OTHER, "adm-pst-other", "PENSTOCK_URL")
    assert notes == [f"PENSTOCK_URL goes before PENSTOCK_POSTGRES_DSN: working on {OTHER}"]
    assert find(postgres_dsn=DSN).found == "--postgres-dsn"
    assert find(gateway="one.example") == Remote(ONE, "adm-pst-one", "--gateway")
    with pytest.raises(InvalidRequest, match="only one of --postgres-dsn and --gateway"):
        find(postgres_dsn=DSN, gateway=ONE)


def test_a_key_of_the_environment_is_shown_at_its_own_gateway_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PENSTOCK_URL", ONE)
    monkeypatch.setenv("PENSTOCK_ADMIN_KEY", "adm-pst-one")
    with pytest.raises(ConfigError, match="nothing to show at https:"):
        find(gateway=OTHER)
    keep(Profile(OTHER, "adm-pst-other"))
    found = find(gateway=OTHER)
    assert isinstance(found, Remote)
    assert found.credential == "adm-pst-other"


def test_nothing_is_shown_unencrypted_unless_that_is_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PENSTOCK_ADMIN_KEY", "adm-pst-one")
    with pytest.raises(ConfigError, match="everybody between could read the admin key"):
        find(gateway="http://one.example")
    assert str(find(gateway="http://one.example", insecure_http=True)) == "http://one.example"
    for url in ("http://127.0.0.1:8080", "http://localhost:8080", "http://[::1]:8080"):
        assert str(find(gateway=url)) == url


def test_a_login_that_is_over_says_how_to_have_another() -> None:
    keep(Profile(ONE, "adm-pst-one", dt.datetime(2020, 1, 1, tzinfo=dt.UTC), signed_in=True))
    with pytest.raises(ConfigError, match=r"is over: penstock login https:..one"):
        find()


@pytest.mark.parametrize("gateway", ["ftp://x", "https://user:hunter2@x", "https://x?y", "nobody.example", ""])
def test_an_address_that_is_none_is_not_quoted(gateway: str) -> None:
    with pytest.raises(InvalidRequest, match=r"^--gateway must") as raised:
        find(gateway=gateway)
    assert "hunter2" not in str(raised.value)


def test_a_place_tells_no_password() -> None:
    place = find(postgres_dsn=DSN)
    assert "hunter2" not in f"{place} {place!r}"
