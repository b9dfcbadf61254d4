"""The `penstock` command on a gateway over HTTP and HTTPS: documents, messages and exit codes as on a database."""

from __future__ import annotations

import datetime as dt
import json
from typing import TYPE_CHECKING

import pytest

from gateway.admin.credentials import create_admin_credential
from gateway.admin.database import transaction_on
from gateway.admin.scope import PLATFORM
from gateway.authenticate.key import Peppers
from tests.support.command import Penstock
from tests.support.servers import run_blocking
from tests.support.tls import Authority, TlsProxy

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.gateway import GatewayProcess


async def _admin_key(dsn: str) -> str:
    async with transaction_on(dsn) as db:
        return (await create_admin_credential(db, PLATFORM, Peppers.parse(""), name="ops")).key


@pytest.fixture
def remote(gateway: GatewayProcess, postgres_dsn: str, tmp_path: Path) -> Penstock:
    """The command, with the address of a running gateway and an admin key in the environment."""
    key = run_blocking(_admin_key(postgres_dsn))
    return Penstock(tmp_path, {"PENSTOCK_URL": gateway.url, "PENSTOCK_ADMIN_KEY": key})


def test_a_gateway_answers_what_its_database_does(
    remote: Penstock, gateway: GatewayProcess, postgres_dsn: str, tmp_path: Path
) -> None:
    local = Penstock(tmp_path, {"PENSTOCK_POSTGRES_DSN": postgres_dsn})
    assert remote("org", "create", "acme", "--json").document["name"] == "acme"
    assert remote("team", "create", "core", "--org", "acme").code == 0
    assert remote("user", "create", "bob", "--org", "acme", "--team", "core").code == 0
    made = remote("key", "create", "--team", "core", "--user", "bob", "--tokens-per-minute", "5", "--json").document
    assert gateway.http(made["key"]).get("/v1/models").status == 200
    for command in (["key", "list"], ["limit", "list"], ["team", "members", "core"]):
        assert remote(*command, "--json").document == local(*command, "--json").document != []
    assert remote("pool", "list", "--json").document[0]["available"] is True
    entry = remote("audit", "list", "--kind", "team", "--json").document[0]
    assert (entry["actor"]["kind"], entry["actor"]["name"], entry["actor"]["address"]) == (
        "admin_key",
        "ops",
        "127.0.0.1",
    )
    for arguments, code, message in (
        (["org", "create", "acme"], 1, "an organization named 'acme' exists already"),
        (["team", "create", "x", "--org", "globex"], 1, "no organization 'globex' (see: penstock org list)"),
        (["limit", "set", "--org", "acme", "--tokens-burst", "5"], 2, "tokens_burst needs tokens_per_minute"),
        (["key", "create", "--team", "core", "--models", "smi"], 2, "; --unchecked-model takes it all the same"),
        (["team", "add-member", "core", "eve"], 1, "no user 'eve' (see: penstock user list)"),
    ):
        there = remote(*arguments)
        assert (there.code, there.out) == (code, ""), there
        assert message in there.err
        assert there.err.endswith(f" [{gateway.url}]\n")
        assert there.err.count("\n") == 1
    wrong = Penstock(tmp_path, remote.variables | {"PENSTOCK_ADMIN_KEY": "adm-pst-x"})("org", "list")
    assert (wrong.code, wrong.err) == (1, f"error: not a valid admin key [{gateway.url}]\n")
    needs = remote("migrate")
    assert needs.code == 1
    assert needs.err.endswith(f"; this works on the database itself, and {gateway.url} is a gateway\n")


def test_a_certificate_is_checked_and_a_company_s_own_is_trusted_on_request(
    remote: Penstock, gateway: GatewayProcess, tmp_path: Path
) -> None:
    authority = Authority(tmp_path)
    with TlsProxy(gateway.url, authority.context(authority.issue("localhost"))) as proxy:
        url = f"https://localhost:{proxy.port}"
        command = Penstock(tmp_path, remote.variables | {"PENSTOCK_URL": url})
        refused = command("org", "create", "acme")
        assert (refused.code, refused.out) == (1, "")
        assert f"cannot reach {url}: its certificate is not trusted" in refused.err
        assert refused.err.endswith("; --ca-file names another authority\n"), "and nothing of an address that is right"
        assert command("org", "list", "--ca-file", str(authority.certificate), "--json").document == []
        unreadable = command("org", "list", "--ca-file", str(tmp_path / "none.pem"))
        assert "none.pem cannot be read: No such file or directory" in unreadable.err
        person = Penstock(tmp_path, {"XDG_CONFIG_HOME": str(tmp_path / "config")})
        key = remote.variables["PENSTOCK_ADMIN_KEY"]
        assert person("login", url, "--key-stdin", "--ca-file", str(authority.certificate), stdin=key).code == 0
        assert person("org", "list", "--json").document == [], "the login keeps what it trusted"
        assert person("logout").code == 0
        assert "no gateway to work on" in person("org", "list").err


def test_a_login_is_used_until_it_is_over(remote: Penstock, gateway: GatewayProcess) -> None:
    folder = remote.folder / "config" / "penstock"
    folder.mkdir(parents=True)
    profile = {"url": gateway.url, "credential": remote.variables["PENSTOCK_ADMIN_KEY"]}
    (folder / "profiles.json").write_text(json.dumps({"current": gateway.url, "profiles": {gateway.url: profile}}))
    command = Penstock(remote.folder, {})
    assert command("org", "list", "--json").document == []
    host = gateway.url.removeprefix("http://")
    assert command("org", "list", "--gateway", host, "--json").document == []
    over = profile | {"expires_at": (dt.datetime.now(dt.UTC) - dt.timedelta(seconds=1)).isoformat()}
    (folder / "profiles.json").write_text(json.dumps({"current": gateway.url, "profiles": {gateway.url: over}}))
    assert f"the login at {gateway.url} is over: penstock login {gateway.url}\n" in command("org", "list").err


def test_a_remote_call_imports_no_server(remote: Penstock) -> None:
    heavy = frozenset({"sqlalchemy", "alembic", "fastapi", "authlib", "uvicorn", "redis"})
    assert remote.imported(heavy, "key", "list", "--json") == "0 []"
