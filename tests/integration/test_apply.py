"""`penstock apply` as people and CI use it: the manual's example, plans, exit codes, mistakes, pruning, reach."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import re
from typing import TYPE_CHECKING, Any

import pytest

from gateway.admin.apply_document import json_schema
from gateway.admin.database import session_on
from tests.support.admin_api import serving
from tests.support.command import REPOSITORY, Penstock
from tests.support.ledger import rows_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.support.admin_api import Api
    from tests.support.command import Outcome

PAGE = REPOSITORY / "docs" / "apply.md"
YEAR = dt.datetime.now(dt.UTC).year + 5
"""In the place of the example's, which will pass."""

NOTHING = "nothing to change: everything is as declared\n"


def example() -> str:
    """Return the file that the manual shows."""
    (text,) = re.findall(r"```yaml\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    return str(text).replace("2035", str(YEAR))


@pytest.fixture
def file(penstock: Penstock) -> Path:
    """The manual's example, as a file."""
    path = penstock.folder / "tenants.yaml"
    path.write_text(example(), encoding="utf-8")
    return path


def applied(penstock: Penstock, file: Path, *options: str, **replaced: str) -> Outcome:
    """Apply a file in which some words are replaced by others."""
    text = file.read_text(encoding="utf-8")
    for number, (old, new) in enumerate(replaced.items()):
        assert old in text, number
        text = text.replace(old, new)
    changed = file.with_name("changed.yaml")
    changed.write_text(text, encoding="utf-8")
    return penstock("apply", "-f", str(changed), *options)


def test_the_example_of_the_manual_is_applied_once(penstock: Penstock, file: Path, postgres_dsn: str) -> None:
    tried = penstock("apply", "-f", str(file), "--dry-run", "--create-keys", "--exit-code", "--json")
    plan = json.loads(tried.out)
    assert (tried.code, plan["dry_run"], plan["keys"]) == (3, True, [])
    assert {change["action"] for change in plan["changes"]} == {"create"}
    assert rows_of(postgres_dsn, "SELECT 1 FROM organization UNION ALL SELECT 1 FROM audit_event") == []
    shown = penstock("apply", "-f", str(file), "--dry-run", "--create-keys").out
    for line in re.findall(r"^(?:\+|\d+ would).*", PAGE.read_text(encoding="utf-8"), re.MULTILINE):
        assert f"{line}\n" in shown
    refused = penstock("apply", "-f", str(file))
    assert (refused.code, refused.out) == (1, "")
    assert (
        "tenants.yaml:23:11: organizations.acme.teams.search.keys.ci: team 'search' has no service key" in refused.err
    )
    assert rows_of(postgres_dsn, "SELECT 1 FROM organization") == [], "all or nothing"

    done = penstock("apply", "-f", str(file), "--create-keys", "--json").document
    assert done["changes"] == plan["changes"]
    (made,) = done["keys"]
    (key,) = penstock("key", "list", "--json").document
    assert made["key"].startswith(f"sk-pst-{key['public_id']}_")
    assert (key["models"], key["addresses"], key["expires_at"]) == (
        ["qwen-coder"],
        ["10.0.0.0/8"],
        f"{YEAR}-01-01T00:00:00Z",
    )
    assert penstock("apply", "-f", str(file), "--prune", "--exit-code").out == NOTHING
    actor = penstock("audit", "list", "--kind", "team", "--json").document[0]["actor"]
    assert actor["kind"] == "local"


def test_changes_are_shown_with_what_was_and_pruned_on_request(penstock: Penstock, file: Path) -> None:
    assert penstock("apply", "-f", str(file), "--create-keys").code == 0
    changes: dict[str, str] = {
        "concurrent_requests: 16": "requests_per_minute: 9",
        "bob: member": "# bob",
        "ci:": "nightly:",
    }
    kept = applied(penstock, file, "--create-keys", **changes)
    assert "~ limit acme / search: requests_per_minute - -> 9, concurrent_requests 16 -> -\n" in kept.out
    assert "+ key acme / search / nightly: models qwen-coder" in kept.out
    assert "2 created, 1 changed, 0 deleted\n" in kept.out
    pruned = applied(penstock, file, "--prune", "--json", **changes).document["changes"]
    gone = sorted((change["action"], change["kind"], *change["path"]) for change in pruned)
    assert gone == [("delete", "key", "acme", "search", "ci"), ("delete", "membership", "acme", "search", "bob")]
    assert [key["name"] for key in penstock("key", "list", "--status", "active", "--json").document] == ["nightly"]
    assert applied(penstock, file, "--prune", **changes).out == NOTHING
    empty = file.with_name("empty.yaml")
    empty.write_text("organizations: {acme: {teams: {}}}\n")
    assert penstock("apply", "-f", str(empty)).out == NOTHING
    assert "- team acme / search\n" in penstock("apply", "-f", str(empty), "--prune").out
    assert [user["name"] for user in penstock("user", "list", "--json").document] == ["alice", "bob"], "not written"


def test_mistakes_are_told_with_line_column_and_what_was_meant(penstock: Penstock, file: Path) -> None:
    ended = applied(
        penstock, file, **{"concurrent_requests": "concurrnt_requests", "25.50": "lots", "team_admin  ": "boss"}
    )
    assert (ended.code, ended.out) == (1, "")
    assert (
        "changed.yaml:21:13: organizations.acme.teams.search.limits[0].concurrnt_requests: is not a known key"
        in ended.err
    )
    assert "; did you mean 'concurrent_requests'?\n" in ended.err
    assert "organizations.acme.users.bob.limits[0].budget_day_usd: must be a plain decimal number in USD" in ended.err
    assert "organizations.acme.teams.search.members.alice: must be 'member' or 'team_admin'" in ended.err
    unknown = applied(penstock, file, "--create-keys", **{"bob: member": "eve: member"})
    assert (
        "changed.yaml:19:11: organizations.acme.teams.search.members.eve: no user 'eve' [postgresql://" in unknown.err
    )
    assert penstock("org", "list", "--json").document == []
    for text, message in (
        ("", "is empty"),
        ("organizations: [", "cannot be read as YAML"),
        ("organizations: {acme: {limits: [{tokens_burst: 5}]}}", "tokens_burst needs tokens_per_minute"),
        ("organizations: {acme: {limits: [{}]}}", "must allow something"),
        ("organizations: {acme: {limits: [{requests_per_minute: 1}, {requests_per_minute: 2}]}}", "must not have two"),
        ("prices: [{model: m, input: 1, output: 1, from: 7d}]", "the same at every reading"),
        ("prices: [{model: m, input: 1}]", "output: is required"),
    ):
        file.write_text(text)
        ended = penstock("apply", "-f", str(file))
        assert (ended.code, ended.out) == (1, ""), text
        assert re.search(r"error: \S+tenants\.yaml:1:\d+: ", ended.err), ended.err
        assert message in ended.err, text
    absent = penstock("apply", "-f", "nothing.yaml")
    assert absent.err == "error: nothing.yaml cannot be read: No such file or directory\n"
    assert penstock("apply").code == 2


def test_a_file_comes_from_standard_input_too(penstock: Penstock) -> None:
    assert penstock("apply", "-f", "-", stdin="organizations: {acme: }\n").out.startswith("+ organization acme\n")
    mistaken = penstock("apply", "-f", "-", stdin="organization: {}\n")
    assert mistaken.err.startswith("error: standard input:1:1: organization: is not a known key; did you mean 'org")
    assert penstock("apply", "--schema").document == json_schema()


async def two_at_once(api: Api, document: Callable[[int], dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """Apply two documents at once, and return what each changed."""
    answers = await asyncio.gather(*(api.post("apply", **document(number)) for number in (1, 2)))
    return [answer["changes"] for answer in answers]


async def test_two_at_once_do_not_interleave(postgres_dsn: str) -> None:
    def document(number: int) -> dict[str, Any]:
        teams = {f"team-{one}": {"limits": [{"requests_per_minute": number}]} for one in range(20)}
        return {"organizations": {"acme": {"teams": teams}}}

    async with serving(postgres_dsn) as api:
        first, second = sorted(await two_at_once(api, document), key=len, reverse=True)
        assert (len(first), len(second)) == (41, 20), "one made all, the other changed each limit after it"
        rules = (await api.get("limits"))["data"]
        assert len({rule["requests_per_minute"] for rule in rules}) == 1


async def test_nobody_declares_beyond_its_reach(postgres_dsn: str) -> None:
    async with serving(postgres_dsn) as api:
        for name in ("acme", "globex"):
            await api.post("organizations", name=name)
        key = (await api.post("admin-keys", organization="acme"))["key"]
        api.client.headers["authorization"] = f"Bearer {key}"
        assert len((await api.post("apply", organizations={"acme": {"teams": {"core": {}}}}))["changes"]) == 1
        rule = {"limits": [{"requests_per_minute": 5}]}
        refusals = [
            await api.refused("POST", "apply", json={"organizations": {name: rule}}) for name in ("globex", "nobody")
        ]
        told = {(status, problem["detail"], problem["code"]) for status, problem in refusals}
        assert len(told) == 1, "whether somebody else's organization exists is not told"
        assert refusals[0][0] == 403
        status, error = await api.refused("POST", "apply", json={"organizations": {"acme": rule}})
        assert (status, error["param"]) == (403, "/organizations/acme/limits/0")
        price = {"model": "m", "input": "1", "output": "1"}
        status, error = await api.refused("POST", "apply", json={"prices": [price]})
        assert (status, error["param"]) == (403, "/prices/0")
        status, error = await api.refused("POST", "apply", json={"prices": [price | {"input": 0.2}]})
        assert (status, error["param"]) == (400, "prices.0.input")
        assert "must be exact" in error["detail"]
        large = {"organizations": {f"org-{number}": None for number in range(400_000)}}
        assert (await api.refused("POST", "apply", json=large))[0] == 413


async def test_who_signs_in_is_not_pruned_and_a_member_makes_no_service_key(postgres_dsn: str) -> None:
    async with serving(postgres_dsn) as api:
        document = {"acme": {"users": {"alice": None, "bob": None, "carol": None}, "teams": {"core": None}}}
        await api.post("apply", organizations=document)
        await api.post("teams/core/members", user="bob")
        async with session_on(postgres_dsn) as connection:
            known = "UPDATE app_user SET oidc_issuer = 'https://id.example', oidc_subject = name WHERE name = 'bob'"
            await connection.execute(known)
        del document["acme"]["users"]["bob"], document["acme"]["users"]["carol"]
        answer = await api.client.post("/admin/v1/apply?prune=true", json={"organizations": document})
        assert [change["path"] for change in answer.json()["changes"]] == [["acme", "carol"]]
        assert {user["name"] for user in (await api.get("users"))["data"]} == {"alice", "bob"}
        key = (await api.post("admin-keys", user="bob", organization="acme"))["key"]
        api.client.headers["authorization"] = f"Bearer {key}"
        wanted = {"organizations": {"acme": {"teams": {"core": {"keys": {"ci": None}}}}}}
        status, error = await api.refused("POST", "apply?create_keys=true", json=wanted)
        assert (status, error["param"]) == (403, "/organizations/acme/teams/core/keys/ci")
        assert (await api.get("keys"))["data"] == []
