"""A limit or a key that names a model: held against the penstock.yaml that is known, by command and by HTTP."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest

from gateway.settings import load_config
from tests.support.acme import make_acme
from tests.support.admin_api import serving
from tests.support.command import Penstock
from tests.support.gateway import write_config

if TYPE_CHECKING:
    from pathlib import Path

ALIAS = "'default' is an alias of 'sim': name that"
UNKNOWN = "penstock.yaml has no model 'smi', only 'sim'; "
LIMIT = ("limit", "set", "--org", "acme", "--tokens-per-minute", "5", "--model")
KEY = ("key", "create", "--team", "core", "--models")


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A penstock.yaml with the model `sim`, also called `default`."""
    (tmp_path / "etc").mkdir()
    return write_config(tmp_path / "etc" / "gateway.yaml", ["http://127.0.0.1:1"])


def assert_refused(command: Penstock, arguments: tuple[str, ...], message: str) -> None:
    ended = command(*arguments)
    assert (ended.code, ended.out, ended.err.count("\n")) == (2, "", 1)
    assert ended.err.startswith(f"error: {message} [postgresql://")


def test_names_are_held_against_the_file_that_the_environment_names(penstock: Penstock, config: Path) -> None:
    make_acme(penstock.variables["PENSTOCK_POSTGRES_DSN"])
    command = Penstock(penstock.folder, penstock.variables | {"PENSTOCK_CONFIG": str(config)})
    assert_refused(command, (*LIMIT, "default"), ALIAS)
    assert_refused(command, (*KEY, "sim,smi"), f"{UNKNOWN}--unchecked-model takes it all the same")
    assert_refused(command, (*KEY, "sim", "--tokens-per-minute", "5", "--model", "default"), ALIAS)
    assert command("limit", "list", "--json").document == command("key", "list", "--json").document == []
    assert command(*LIMIT, "smi", "--unchecked-model", "--json").document["model"] == "smi"
    said = command(*LIMIT, "sim")
    assert (said.code, said.err) == (0, "")


def test_names_are_held_against_the_file_of_a_running_dev(nowhere: Penstock, postgres_dsn: str, config: Path) -> None:
    make_acme(postgres_dsn)
    (nowhere.folder / ".penstock").mkdir()
    running = {"pid": os.getpid(), "postgres_dsn": postgres_dsn, "config": str(config)}
    (nowhere.folder / ".penstock" / "dev.json").write_text(json.dumps(running))
    assert_refused(nowhere, (*LIMIT, "default"), ALIAS)


def test_where_no_file_is_known_people_are_told_once_it_is_done(penstock: Penstock) -> None:
    make_acme(penstock.variables["PENSTOCK_POSTGRES_DSN"])
    note = "note: no penstock.yaml is known here (set PENSTOCK_CONFIG), so {} not checked\n"
    assert penstock(*LIMIT, "smi").err == note.format("smi was")
    assert penstock(*KEY, "a,b").err == note.format("a, b were")


async def test_a_replica_holds_names_against_its_own_configuration(postgres_dsn: str, config: Path) -> None:
    async with serving(postgres_dsn, load_config(config)) as api:
        await api.post("organizations", name="acme")
        await api.post("teams", name="core", organization="acme")
        limit = {"level": "organization", "subject": "acme", "tokens_per_minute": 5}
        status, error = await api.refused("POST", "limits", json=limit | {"model": "default"})
        assert (status, error["param"], error["detail"]) == (400, "model", ALIAS)
        for field, value in (("models", ["sim", "smi"]), ("limits_model", "smi")):
            key = {"team": "core", "tokens_per_minute": 5, field: value}
            status, error = await api.refused("POST", "keys", json=key)
            assert (status, error["param"]) == (400, field)
            assert error["detail"] == f'{UNKNOWN}"unchecked_model": true takes it all the same'
            await api.post("keys", **key, unchecked_model=True)
        assert (await api.post("limits", **limit, model="sim"))["model"] == "sim"
