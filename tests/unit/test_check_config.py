"""`penstock check-config`: what it prints, and where, and how it exits."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import typer
from typer.testing import CliRunner, Result

from gateway.cli.check_config import check_config

if TYPE_CHECKING:
    from pathlib import Path

GOOD = (
    "pools: {gpu: {engine: vllm, endpoints: [http://a], api_key_env: %s}}\nmodels: {m: {pool: gpu}, n: {pool: gpu}}\n"
)
UNSET = "PENSTOCK_TEST_VARIABLE_THAT_IS_NOT_SET"


def run(*arguments: str) -> Result:
    """Run the command in this process."""
    app = typer.Typer()
    app.command()(check_config)
    return CliRunner().invoke(app, list(arguments))


def write(folder: Path, text: str) -> str:
    path = folder / "penstock.yaml"
    path.write_text(text)
    return str(path)


def test_a_good_file(tmp_path: Path) -> None:
    result = run(write(tmp_path, GOOD % "PATH"))
    assert (result.exit_code, result.stdout, result.stderr) == (0, "ok: 1 pool, 2 models\n", "")


def test_problems_go_to_standard_error_with_their_place(tmp_path: Path) -> None:
    path = write(tmp_path, "pools: {}\nmodels: {m: {pool: x}}\nextra: 1\n")
    result = run(path)
    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr.splitlines() == [
        f"{path}:1:8: pools: must not be empty",
        f"{path}:2:20: models.m.pool: there is no pool 'x'",
        f"{path}:3:1: extra: is not a known key",
    ]


def test_a_missing_file(tmp_path: Path) -> None:
    path = str(tmp_path / "none.yaml")
    result = run(path)
    assert (result.exit_code, result.stderr) == (1, f"{path}:1:1: cannot be read: No such file or directory\n")


def test_credentials_can_be_left_out(tmp_path: Path) -> None:
    path = write(tmp_path, GOOD % UNSET)
    assert run(path).exit_code == 1
    assert run(path, "--no-credentials").exit_code == 0


def test_json_for_scripts(tmp_path: Path) -> None:
    path = write(tmp_path, GOOD % "PATH")
    assert json.loads(run(path, "--json").stdout) == {"ok": True, "file": path, "pools": 1, "models": 2, "problems": []}
    write(tmp_path, "pools: {}\nmodels: {m: {pool: gpu}}\n")
    result = run(path, "--json")
    assert result.exit_code == 1
    answer = json.loads(result.stdout)
    assert (answer["ok"], answer["file"]) == (False, path)
    assert answer["problems"][0] == {"line": 1, "column": 8, "path": "pools", "message": "must not be empty"}
