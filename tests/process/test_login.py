"""`penstock login` against a real gateway and a real identity provider: every way in, and the keys that come of it."""

from __future__ import annotations

import json
import re
import signal
import stat
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from gateway.admin.credentials import create_admin_credential
from gateway.admin.database import transaction_on
from gateway.admin.organizations import create_organization
from gateway.admin.scope import PLATFORM
from gateway.admin.teams import create_team
from tests.support.command import Outcome, Penstock
from tests.support.gateway import GatewayProcess
from tests.support.interrupts import interrupts_heard
from tests.support.login import logged_in_as
from tests.support.oidc import CLIENT, SECRET, SECRET_CLIENT, OidcServer, Person
from tests.support.servers import run_blocking
from tests.support.stack import Stack, running_stack
from tests.support.tenants import NO_PEPPERS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from gateway.dev.servers import ServerAddresses
    from tests.support.servers import Databases

SIGN_IN = {
    "organization": "acme",
    "groups": {"ml": {"team": "ml"}, "data": {"team": "data"}, "admins": {"role": "platform_admin"}},
}
ACCOUNTS: dict[str, dict[str, Any]] = {
    "alice": {"preferred_username": "alice", "email": "alice@acme.example", "groups": ["ml"]},
    "bob": {"preferred_username": "bob", "groups": ["ml", "data"]},
    "carol": {"preferred_username": "carol", "groups": ["admins"]},
    "dave": {"preferred_username": "dave", "groups": []},
    "eve": {"preferred_username": "eve", "groups": ["ml"]},
}


@dataclass(frozen=True)
class World:
    """What runs, for all tests of this module; each test logs in from a folder of its own."""

    stack: Stack
    oidc: OidcServer
    admin_key: str

    @property
    def url(self) -> str:
        """The gateway's address."""
        return f"http://127.0.0.1:{self.stack.gateway.port}"

    def key_works(self, key: str) -> bool:
        """Whether an API key counts."""
        return self.stack.gateway.http(key).get("/v1/models").status == 200


@pytest.fixture(scope="module")
def world(databases: Databases, servers: ServerAddresses, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A gateway whose people sign in, with an organization of two teams."""
    folder = tmp_path_factory.mktemp("login")
    with (
        OidcServer(folder, ACCOUNTS) as oidc,
        running_stack(
            databases,
            servers,
            folder,
            config={"sign_in": SIGN_IN},
            oidc_issuer=oidc.issuer,
            oidc_client_id=CLIENT,
            oidc_scopes="openid profile email groups",
        ) as stack,
    ):
        yield World(stack, oidc, run_blocking(_tenants(stack.dsn)))


async def _tenants(dsn: str) -> str:
    async with transaction_on(dsn) as db:
        acme = await create_organization(db, PLATFORM, "acme")
        for team in ("ml", "data"):
            await create_team(db, PLATFORM, team, organization=str(acme.id))
        return (await create_admin_credential(db, PLATFORM, NO_PEPPERS, name="ops")).key


@pytest.fixture
def penstock(tmp_path: Path) -> Penstock:
    """The command of somebody who has logged in nowhere."""
    return Penstock(tmp_path, {"XDG_CONFIG_HOME": str(tmp_path / "config"), "HOME": str(tmp_path)})


def profile_in(penstock: Penstock) -> dict[str, Any]:
    """Return what a login has kept."""
    document = json.loads((penstock.folder / "config/penstock/profiles.json").read_text())
    profile: dict[str, Any] = document["profiles"][document["current"]]
    return profile


def test_a_login_with_a_code_lasts_until_logging_out(world: World, penstock: Penstock) -> None:
    outcome, page = logged_in_as("alice", penstock, world.url)
    assert (outcome.code, outcome.out) == (0, ""), outcome
    assert "Sign-in Success" in page
    assert "enter the code" in outcome.err
    assert f"logged in to {world.url} as alice (member of acme), until " in outcome.err
    kept = penstock.folder / "config/penstock/profiles.json"
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    credential = profile_in(penstock)["credential"]
    assert credential not in outcome.err

    me = penstock("whoami", "--json").document
    assert (me["kind"], me["name"], me["role"], me["organization"]) == ("user", "alice", "member", "acme")
    assert [team["name"] for team in me["teams"]] == ["ml"]
    assert penstock("whoami").out == f"alice (member of acme) at {world.url}; teams: ml (member)\n"
    assert [team["name"] for team in penstock("team", "list", "--json").document] == ["ml"]

    assert penstock("logout").err == f"logged out of {world.url}\n"
    assert world.stack.gateway.http(credential).get("/admin/v1/me").status == 401
    assert "no gateway to work on" in penstock("whoami").err
    assert penstock("logout").err == "not logged in\n"


def test_a_login_with_the_browser_comes_back_by_the_loopback(world: World, penstock: Penstock) -> None:
    outcome, page = logged_in_as("carol", penstock, world.url, "--browser")
    assert outcome.code == 0, outcome
    assert "You are logged in." in page
    assert "as carol (platform_admin), until " in outcome.err
    assert {org["name"] for org in penstock("org", "list", "--json").document} >= {"acme"}


def test_a_key_of_ones_own_for_each_machine_and_tool(world: World, penstock: Penstock) -> None:
    first, _ = logged_in_as("eve", penstock, world.url, "--print-key")
    assert first.code == 0, first
    assert first.out.startswith("sk-pst-")
    assert first.out.count("\n") == 1
    assert first.out.strip() not in first.err
    second = penstock("login", world.url, "--print-key")  # who is logged in is asked nothing
    assert (second.code, second.err) == (0, "")
    other = penstock("login", world.url, "--print-key", "--for", "shell", "--expires-in", "30d")
    keys = penstock("key", "list", "--json").document
    assert sorted((key["name"].partition(" on ")[0], key["user"], key["team"]) for key in keys) == [
        ("opencode", "eve", "ml"),
        ("shell", "eve", "ml"),
    ]
    assert {bool(key["expires_at"]) for key in keys} == {True, False}
    texts = {outcome.out.strip() for outcome in (first, second, other)}
    assert len(texts) == 3
    assert all(world.key_works(text) for text in texts)  # the text before counts for a day: work that runs goes on
    bounded = penstock("login", world.url, "--print-key", "--expires-in", "90d")  # the key that there is, too
    ends = [key["expires_at"] for key in penstock("key", "list", "--name", "opencode", "--json").document]
    assert (bounded.code, len(ends), bool(ends[0])) == (0, 1, True), bounded
    assert penstock("login", world.url, "--print-key", "--expires-in", "91d").code == 0
    same = penstock("key", "list", "--name", "opencode", "--json").document
    assert [key["expires_at"] for key in same] == ends, "its holder does not prolong it"
    assert penstock("login", world.url, "--print-key", "--expires-in", "0s").code == 2


def test_who_is_in_several_teams_says_which_once(world: World, penstock: Penstock) -> None:
    unsaid, _ = logged_in_as("bob", penstock, world.url, "--print-key")
    assert (unsaid.code, unsaid.out) == (2, "")
    assert "you are in several teams: say which with --team (data, ml)" in unsaid.err
    assert "you are in no team 'sales'" in penstock("login", world.url, "--print-key", "--team", "sales").err
    said = penstock("login", world.url, "--print-key", "--team", "data")
    again = penstock("login", world.url, "--print-key")
    assert (said.code, again.code) == (0, 0), (said, again)
    moved = penstock("login", world.url, "--print-key", "--team", "ml")
    keys = penstock("key", "list", "--json").document
    mine = [(key["team"], key["status"]) for key in keys if key["user"] == "bob"]
    assert sorted(mine) == [("data", "revoked"), ("ml", "active")]
    assert world.key_works(moved.out.strip())


def test_somebody_without_a_group_is_told_and_nothing_is_kept(world: World, penstock: Penstock) -> None:
    outcome, _ = logged_in_as("dave", penstock, world.url, "--print-key")
    assert (outcome.code, outcome.out) == (1, "")
    assert "error: none of your groups may use this gateway" in outcome.err
    assert not (penstock.folder / "config").exists()


def with_input(penstock: Penstock, text: str, *arguments: str) -> Outcome:
    """Run the command with `text` as its standard input."""
    command = [sys.executable, "-m", "gateway", *arguments]
    done = subprocess.run(
        command,
        cwd=penstock.folder,
        env=penstock.environment,
        input=text,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return Outcome(done.returncode, done.stdout, done.stderr)


def test_an_admin_key_from_standard_input(world: World, penstock: Penstock) -> None:
    wrong = with_input(penstock, "adm-pst-wrong\n", "login", world.url, "--key-stdin")
    assert (wrong.code, "not a valid admin key" in wrong.err) == (1, True), wrong
    assert not (penstock.folder / "config").exists()
    outcome = with_input(penstock, world.admin_key + "\n", "login", world.url, "--key-stdin")
    assert outcome.err == f"logged in to {world.url} as admin key ops (platform_admin)\n"
    assert penstock("whoami", "--json").document["kind"] == "admin_key"
    refused = with_input(penstock, world.admin_key, "login", world.url, "--key-stdin", "--print-key")
    assert (refused.code, refused.out) == (1, "")
    assert "an admin key is nobody's own" in refused.err
    assert penstock("logout").code == 0
    assert world.stack.gateway.http(world.admin_key).get("/admin/v1/me").status == 200  # an administrator's to revoke


def test_a_client_with_a_secret_logs_in_through_the_gateway(
    world: World, penstock: Penstock, servers: ServerAddresses
) -> None:
    stack = world.stack
    secret = {"oidc_issuer": world.oidc.issuer, "oidc_client_id": SECRET_CLIENT, "oidc_client_secret": SECRET}
    with GatewayProcess(stack.gateway.config, stack.dsn, servers.redis_url, **secret) as gateway:
        url = f"http://127.0.0.1:{gateway.port}"
        told = gateway.http().get("/auth/config").document["oidc"]
        assert (told["token_endpoint"], told["device_authorization_endpoint"]) == ("/auth/token", "/auth/device")
        assert told["authorization_endpoint"].startswith(world.oidc.issuer)
        for way in ([], ["--browser"]):
            outcome, _ = logged_in_as("alice", penstock, url, *way)
            # The scopes of this gateway leave groups out: the token says nothing of them, and the refusal says so.
            assert "your token says nothing of groups" in outcome.err, outcome
        form = {"content-type": "application/x-www-form-urlencoded"}
        stolen = gateway.http().post("/auth/token", b"grant_type=client_credentials&scope=openid", form)
        assert (stolen.status, stolen.document["param"]) == (400, "grant_type")
        wrong = gateway.http().post("/auth/token", b"grant_type=authorization_code&code=a&redirect_uri=b", form)
        assert (wrong.status, wrong.document["param"]) == (400, "code_verifier")
        assert SECRET not in gateway.log.read_text()
    assert stack.gateway.http().post("/auth/token", b"grant_type=authorization_code", form).status == 404


def test_without_an_identity_provider_an_admin_key_is_asked_for(
    world: World, penstock: Penstock, servers: ServerAddresses
) -> None:
    with GatewayProcess(world.stack.gateway.config, world.stack.dsn, servers.redis_url) as gateway:
        url = f"http://127.0.0.1:{gateway.port}"
        assert gateway.http().get("/auth/config").document["oidc"] is None
        assert gateway.http().post("/auth/exchange", {"id_token": "x"}).status == 404
        outcome = penstock("login", url)
        assert outcome.code == 1
        assert outcome.err == "error: there is no terminal to ask for an admin key on: give it with --key-stdin\n"


def test_an_interrupt_ends_it_and_leaves_nothing(world: World, penstock: Penstock) -> None:
    command = [sys.executable, "-m", "gateway", "login", world.url]
    with interrupts_heard():
        process = subprocess.Popen(
            command,
            cwd=penstock.folder,
            env=penstock.environment,
            text=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
    with process:
        assert process.stderr is not None
        assert "enter the code" in process.stderr.readline()
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, "")
    assert "Traceback" not in err
    assert not (penstock.folder / "config").exists()


def test_a_gateway_that_is_not_there_is_told(penstock: Penstock) -> None:
    outcome = penstock("login", "http://127.0.0.1:9")
    assert (outcome.code, outcome.out) == (1, "")
    assert "cannot reach 127.0.0.1:9" in outcome.err


def filled_in(line: str, known: dict[str, str]) -> str:
    """Return a line with what is known in place of the names in capitals."""
    return re.sub(r"\b[A-Z]+(?:_[A-Z]+)*\b", lambda found: known.get(found[0], found[0]), line)


def test_the_curl_lines_of_the_setup_page_lead_to_a_key(world: World) -> None:
    """As somebody without the command pastes them, filling in what each line before has answered."""
    page = world.stack.gateway.http().get("/setup.md").body.decode()
    lines = page.split("```sh\n")[2].split("```")[0].replace(page.split("```text\n")[1].split("\n")[0], world.url)
    told = world.stack.gateway.http().get("/auth/config").document["oidc"]
    known = {name.upper(): str(value) for name, value in told.items()} | {"TEAM": "ml"}
    answer: dict[str, Any] = {}
    for line in lines.splitlines():
        shell = ["sh", "-c", filled_in(line, known)]
        done = subprocess.run(shell, capture_output=True, text=True, timeout=60, check=True)
        answer = json.loads(done.stdout)
        known |= {name.upper(): str(value) for name, value in answer.items()}
        if "verification_uri_complete" in answer:
            Person("alice").visit(answer["verification_uri_complete"])
    assert world.key_works(answer["key"])
