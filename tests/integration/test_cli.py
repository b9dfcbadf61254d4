"""The `penstock` command as scripts and people use it: the real process on a real Postgres."""

from __future__ import annotations

import asyncio
import datetime as dt
from typing import TYPE_CHECKING

from gateway.admin.database import transaction_on
from gateway.admin.keys import find_key
from gateway.admin.page import ROWS_MAX
from gateway.admin.scope import PLATFORM
from gateway.authenticate.key import KEY_PREFIX, parse_key
from tests.support.acme import make_acme
from tests.support.ledger import write_usage

if TYPE_CHECKING:
    from tests.support.command import Penstock


def test_create_and_list_answer_ids_and_names(penstock: Penstock) -> None:
    organization = penstock("org", "create", "acme", "--json").document
    team = penstock("team", "create", "core", "--org", "acme", "--json").document
    user = penstock("user", "create", "bob", "--org", organization["id"], "--team", "core", "--json").document
    assert (organization["name"], team["name"], user["name"]) == ("acme", "core", "bob")
    assert penstock("org", "list", "--json").document == [organization]
    assert penstock("team", "list", "--json").document == [team]
    assert penstock("user", "list", "--org", "acme", "--json").document == [user]
    assert user["teams"] == ["core"]
    assert penstock("team", "create", "web", "--org", "acme").code == 0
    assert penstock("team", "add-member", "web", "bob", "--json").document["teams"] == ["core", "web"]


def test_a_key_is_shown_once_with_its_limits(penstock: Penstock) -> None:
    make_acme(penstock.variables["PENSTOCK_POSTGRES_DSN"])
    limits = ["--requests-per-minute", "60", "--tokens-per-minute", "90000"]
    options = [*limits, "--expires-in", "30d", "--models", "a, b", "--name", "ci"]
    made = penstock("key", "create", "--org", "acme", "--team", "core", "--user", "bob", *options, "--json").document
    assert parse_key(made["key"]) is not None
    assert (made["team"], made["user"], made["models"], made["status"]) == ("core", "bob", ["a", "b"], "active")
    (listed,) = penstock("key", "list", "--json").document
    assert listed == {name: value for name, value in made.items() if name != "key"}
    (limit,) = penstock("limit", "list", "--json").document
    assert (limit["level"], limit["subject_id"], limit["subject"]) == ("key", made["id"], "ci")
    assert (limit["requests_per_minute"], limit["tokens_per_minute"]) == (60, 90_000)

    revoked = penstock("key", "revoke", made["id"], "--json").document
    assert revoked["status"] == "revoked"
    assert penstock("key", "revoke", made["id"], "--json").document == revoked


def test_limits_are_set_at_each_level_and_cleared(penstock: Penstock) -> None:
    make_acme(penstock.variables["PENSTOCK_POSTGRES_DSN"])
    key = penstock("key", "create", "--org", "acme", "--team", "core", "--json").document
    for number, subject in enumerate((["--org", "acme"], ["--team", "core"], ["--user", "bob"], ["--key", key["id"]])):
        rule = penstock("limit", "set", *subject, "--requests-per-minute", str(number + 1), "--json").document
        assert rule["requests_per_minute"] == number + 1
        assert rule["tokens_per_minute"] is None
    levels = [rule["level"] for rule in penstock("limit", "list", "--json").document]
    assert levels == ["organization", "team", "user", "key"]
    narrowed = ["--org", "acme", "--team", "core", "--model", "qwen"]
    said = penstock("limit", "set", *narrowed, "--tokens-per-minute", "1000").out
    assert said == "team core for model qwen may use 1,000 tokens a minute\n"
    assert penstock("limit", "clear", *narrowed, "--json").document == {"removed": 1}
    assert penstock("limit", "clear", *narrowed).out == "there was no such limit\n"
    assert len(penstock("limit", "list", "--org", "acme", "--json").document) == 4


def test_usage_reports_what_the_ledger_holds(penstock: Penstock, postgres_dsn: str) -> None:
    make_acme(penstock.variables["PENSTOCK_POSTGRES_DSN"])
    key = penstock("key", "create", "--org", "acme", "--team", "core", "--user", "bob", "--json").document

    async def write() -> None:
        async with transaction_on(postgres_dsn) as db:
            owner = await find_key(db, PLATFORM, key["id"])
            moment = dt.datetime.now(dt.UTC) - dt.timedelta(hours=2)
            for _ in range(3):
                await write_usage(db, owner, moment, cost_pico_usd=123_456_789)

    asyncio.run(write())
    for by, name in (("org", "acme"), ("team", "core"), ("user", "bob"), ("model", "qwen-coder")):
        (row,) = penstock("usage", "--by", by, "--json").document
        assert row["name"] == name
        told = {
            "requests": 3,
            "prompt_tokens": 300,
            "cached_tokens": 120,
            "completion_tokens": 30,
            "cost_usd": "0.000370370367",
            "estimated": 0,
        }
        assert row == row | told
    assert penstock("usage", "--by", "key", "--json").document[0]["id"] == key["id"]
    assert penstock("usage", "--since", "1h", "--json").document == []
    assert penstock("usage", "--org", "acme", "--since", "3h", "--until", "1h", "--json").document[0]["requests"] == 3
    shown = penstock("usage").out
    assert "0.000370370367" in shown
    assert "from 2" in shown


def test_people_get_tables_without_markup_in_names(penstock: Penstock) -> None:
    assert "no organizations yet" in penstock("org", "list").out
    name = "[red]x[bold] " + "y" * 150
    assert penstock("org", "create", name).out.startswith(f"organization {name} made, id ")
    lines = penstock("org", "list").out.splitlines()
    assert lines[0].split() == ["name", "id", "created"]
    assert name in lines[1]
    make_acme(penstock.variables["PENSTOCK_POSTGRES_DSN"])
    made = penstock("key", "create", "--team", "core")
    assert made.out.splitlines()[1].startswith(KEY_PREFIX)
    assert "active" in penstock("key", "list").out
    assert "bob" in penstock("user", "list").out
    assert "core" in penstock("team", "list").out
    assert "no limits" in penstock("limit", "list").out


def test_a_list_of_several_pages_is_whole(penstock: Penstock, postgres_dsn: str) -> None:
    count = 2 * ROWS_MAX + 1

    async def make() -> None:
        async with transaction_on(postgres_dsn) as db:
            await db.execute(
                "INSERT INTO organization (name) SELECT 'org-' || n FROM generate_series(1, $1) AS n", count
            )

    asyncio.run(make())
    names = [organization["name"] for organization in penstock("org", "list", "--json").document]
    assert len(names) == count
    assert set(names) == {f"org-{number}" for number in range(1, count + 1)}


def test_admin_keys_are_made_listed_and_revoked(penstock: Penstock) -> None:
    made = penstock("admin-key", "create", "--name", "ops", "--expires-in", "12h", "--json").document
    assert made["key"].startswith("adm-pst-")
    assert penstock("admin-key", "create").out.splitlines()[1].startswith("adm-pst-")
    assert "ops" in penstock("admin-key", "list").out
    assert penstock("admin-key", "revoke", made["id"], "--json").document["status"] == "revoked"
    assert [one["status"] for one in penstock("admin-key", "list", "--json").document] == ["revoked", "active"]
    assert penstock("admin-key", "revoke", made["public_id"]).code == 0
