"""How the `penstock` command finds its database, explains itself, and fails: one line and an exit code."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import pytest

from gateway import __version__
from gateway.cli.lazy import COMMANDS
from tests.support.acme import make_acme
from tests.support.command import Outcome, Penstock


def assert_error(ended: Outcome, code: int, message: str) -> None:
    assert (ended.code, ended.out) == (code, ""), ended
    assert ended.err.startswith("error: ")
    assert message in ended.err
    assert ended.err.count("\n") == 1


def test_a_failure_is_one_line_and_exit_code_1(penstock: Penstock) -> None:
    make_acme(penstock.variables["PENSTOCK_POSTGRES_DSN"])
    for arguments, message in (
        (["org", "create", "acme"], "error: an organization named 'acme' exists already"),
        (["team", "create", "core", "--org", "acme"], "a team named 'core' exists already in organization 'acme'"),
        (["team", "create", "x", "--org", "globex"], "error: no organization 'globex' (see: penstock org list)"),
        (["team", "add-member", "web", "bob"], "error: no team 'web' (see: penstock team list)"),
        (["key", "revoke", "nothing"], "error: no key with this id (see: penstock key list)"),
        (["key", "create", "--team", "core", "--user", "eve"], "error: no user 'eve' (see: penstock user list)"),
        (["admin-key", "revoke", "x"], "error: no admin key with this id (see: penstock admin-key list)"),
    ):
        assert_error(penstock(*arguments, "--json"), 1, message)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["key", "create", "--team", "core", "--expires-in", "soon"], "--expires-in must look like 30d, 12h or 90m"),
        (["key", "create", "--team", "core", "--expires-in", "-1d"], "--expires-in must look like 30d, 12h or 90m"),
        (["key", "create", "--team", "core", "--expires-in", "0d"], "--expires-in is shorter than a minute"),
        (["key", "create", "--team", "core", "--models", ""], "models must not be empty"),
        (["limit", "set", "--org", "acme"], "say what to allow: give at least one limit"),
        (["limit", "set", "--tokens-per-minute", "5"], "say what to limit: --org, --team, --user or --key"),
        (["limit", "set", "--team", "a", "--user", "b", "--tokens-per-minute", "5"], "only one of"),
        (["limit", "set", "--org", "acme", "--tokens-per-minute", "0"], "must be 1 to"),
        (["limit", "set", "--org", "acme", "--tokens-per-minute", "-5"], "must be 1 to 1,000,000,000,000"),
        (["limit", "set", "--org", "acme", "--tokens-per-minute", "many"], "'--tokens-per-minute'"),
        (["usage", "--by", "colour"], "by must be one or several of org, team"),
        (["usage", "--since", "1h", "--until", "2h"], "since must lie before until"),
        (["ledger", "export", "--since", "1h", "--until", "2h"], "since must lie before until"),
        (["usage", "--until", "0001-01-01"], "until must look like"),
        (["serve", "--port", "65536"], "'--port'"),
        (["usage", "--since", "someday"], "since must look like"),
        (["org", "create", "a\nb"], "cannot be printed"),
        (["team", "create", "x"], "error: Missing option '--org' (see: penstock team create --help)\n"),
        (["nothing"], "error: No such command 'nothing' (see: penstock --help)\n"),
    ],
)
def test_a_call_that_cannot_be_understood_is_exit_code_2(
    penstock: Penstock, arguments: list[str], message: str
) -> None:
    assert_error(penstock(*arguments), 2, message)


def test_a_database_that_was_never_migrated_says_what_to_do(empty_postgres_dsn: str, nowhere: Penstock) -> None:
    flag = ["--postgres-dsn", empty_postgres_dsn]
    ended = nowhere("org", "list", *flag)
    assert_error(ended, 1, "error: the database has no tables of this release; run: penstock migrate [postgresql://")
    first = nowhere("migrate", *flag, "--json").document
    assert nowhere("migrate", *flag, "--json").document == first
    assert nowhere("migrate", *flag).out == f"the database is at revision {first['revision']}\n"
    assert nowhere("org", "list", *flag, "--json").document == []


def test_a_database_that_is_away_is_told_without_its_password(postgres_dsn: str, nowhere: Penstock) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        port = silent.getsockname()[1]
        refusing = f"postgresql://someone:hunter2@127.0.0.1:{port}/x"
        for command in (["org", "list"], ["migrate"]):
            ended = nowhere(*command, "--postgres-dsn", refusing)
            assert (ended.code, ended.out) == (1, "")
            assert "cannot reach Postgres at postgresql://someone:***@127.0.0.1" in ended.err
            assert "Connection refused; check its address, and that it runs there\n" in ended.err
            assert "hunter2" not in ended.err
        silent.listen()
        assert "no answer within 4 s; check its address" in nowhere("key", "list", "--postgres-dsn", refusing).err
    absent = urlunsplit(urlsplit(postgres_dsn)._replace(path="/no_such_database"))
    said = nowhere("key", "list", "--postgres-dsn", absent).err
    assert "does not exist; check user, password and database in its address" in said
    elsewhere = nowhere("key", "list", "--postgres-dsn", "postgresql://someone@nowhere.invalid/x").err
    assert "[Errno" not in elsewhere
    assert elsewhere.endswith("; check its address, and that it runs there\n")


@pytest.mark.parametrize(
    "address",
    [
        "mysql://u:hunter2@h/x",
        "hunter2",
        "postgresql://u:hunter2@127.0.0.1/x?sslmode=hunter2",
        "postgresql://u:hunter2@h:p/x",
    ],
)
def test_an_address_that_is_none_is_not_quoted(nowhere: Penstock, address: str) -> None:
    for ended in (
        nowhere("org", "list", "--postgres-dsn", address),
        nowhere("migrate", "--postgres-dsn", address),
        Penstock(nowhere.folder, {"PENSTOCK_POSTGRES_DSN": address})("org", "list"),
    ):
        assert_error(ended, 1, "")
        assert "hunter2" not in ended.err


def test_a_pepper_that_cannot_be_read_is_not_quoted(penstock: Penstock) -> None:
    wrong = Penstock(penstock.folder, penstock.variables | {"PENSTOCK_KEY_PEPPERS": "1:hunter2"})
    ended = wrong("org", "list")
    assert (ended.code, ended.err) == (1, "error: PENSTOCK_KEY_PEPPERS: pepper 1 is not base64\n")


def test_a_running_dev_in_this_folder_is_found(postgres_dsn: str, nowhere: Penstock) -> None:
    folder = nowhere.folder / ".penstock"
    described = folder / "dev.json"
    alive = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        folder.mkdir()
        described.write_text(json.dumps({"pid": alive.pid, "postgres_dsn": postgres_dsn}))
        assert nowhere("org", "create", "acme", "--json").document["name"] == "acme"
        assert nowhere("migrate").code == 0
    finally:
        alive.communicate(b"\n", timeout=30)
    for content in (described.read_text(), "[]", "{}", "no json", '{"pid": 1e9, "postgres_dsn": 5}'):
        described.write_text(content)
        ended = nowhere("org", "list")
        assert ended.code == 1
        assert "set PENSTOCK_POSTGRES_DSN" in ended.err
        assert "penstock dev" in ended.err
    assert nowhere("migrate").code == 1


def test_help_and_version_and_completion_need_no_database(nowhere: Penstock) -> None:
    assert nowhere("--version").out == f"penstock {__version__}\n"
    shown = nowhere("--help").out
    for name, command in COMMANDS.items():
        assert name in shown
        assert command.help in shown
    assert "tokens-per-minute" in nowhere("key", "create", "--help").out
    completing = Penstock(
        nowhere.folder, {"_PENSTOCK_COMPLETE": "complete_bash", "COMP_WORDS": "penstock key re", "COMP_CWORD": "2"}
    )
    assert completing().out.split() == ["revoke"]
    bare = nowhere("key")
    assert (bare.code, bare.err) == (2, "")
    assert "revoke" in bare.out
    assert "completion" not in bare.out


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself(nowhere: Penstock, name: str) -> None:
    ended = nowhere(name, "--help")
    assert (ended.code, ended.err) == (0, "")
    assert f"penstock {name}" in ended.out


def test_a_help_is_folded_where_the_terminal_ends(nowhere: Penstock) -> None:
    narrow = Penstock(nowhere.folder, {"COLUMNS": "100"})
    paragraph = narrow("dev", "--help").out.partition("Nothing has")[2].partition("Options:")[0]
    assert all(len(line.rstrip()) > 80 for line in paragraph.rstrip().splitlines()[1:-1])


def test_a_file_that_is_not_there_is_asked_for(nowhere: Penstock) -> None:
    assert_error(nowhere("serve"), 1, "there is no file penstock.yaml: say with --config where penstock.yaml is")


def test_a_name_that_the_terminal_cannot_show_is_no_error(penstock: Penstock) -> None:
    plain = Penstock(penstock.folder, penstock.variables | {"PYTHONIOENCODING": "ascii"})
    assert plain("org", "create", "größe").out.startswith("organization gr\\xf6\\xdfe made, id ")
    assert "gr\\xf6\\xdfe" in plain("org", "list").out
    assert plain("org", "list", "--json").document[0]["name"] == "größe"


def test_an_answer_that_cannot_be_written_is_told(penstock: Penstock) -> None:
    for form in ([], ["--json"]):
        with Path("/dev/full").open("w") as full:
            done = subprocess.run(
                [sys.executable, "-m", "gateway", "org", "list", *form],
                env=penstock.environment,
                cwd=penstock.folder,
                stdout=full,
                stderr=subprocess.PIPE,
                encoding="utf-8",
                timeout=60,
                check=False,
            )
        assert (done.returncode, done.stderr) == (1, "error: the system refuses: No space left on device\n")


def test_a_light_command_does_not_import_the_gateway(penstock: Penstock) -> None:
    heavy = frozenset({"sqlalchemy", "alembic", "authlib", "uvicorn", "litellm", "redis"})
    assert penstock.imported(heavy, "key", "list", "--json") == "0 []"


def test_a_reader_that_has_had_enough_is_no_error(penstock: Penstock) -> None:
    for number in range(3):
        penstock("org", "create", f"org-{number}")
    process = subprocess.Popen(
        [sys.executable, "-m", "gateway", "org", "list", "--json"],
        env=penstock.environment,
        cwd=penstock.folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    with process.stderr:
        assert process.stderr.read() == b""
    assert process.wait(60) == 1
