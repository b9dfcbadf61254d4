"""What people and clients fetch to begin: always 200, by the address of the settings, and no name without a key."""

from __future__ import annotations

import datetime as dt
import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.command import Penstock
from tests.support.engine import EngineProcess
from tests.support.gateway import GatewayProcess, write_config
from tests.support.stack import Stack, running_stack
from tests.support.waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from gateway.dev.servers import ServerAddresses
    from tests.support.servers import Databases

PUBLIC = "https://gateway.example.com"
MODELS: dict[str, dict[str, Any]] = {
    name: {"pool": "gpu", "upstream": "sim", "context": 8192} for name in ("secret-coder", "secret-writer")
}
ELSEWHERE = {"host": "evil.example.com", "x-forwarded-host": "evil.example.com", "forwarded": "host=evil.example.com"}
CONFIG, WELL_KNOWN = "/opencode/config.json", "/.well-known/opencode"
PAGES = (WELL_KNOWN, CONFIG, "/setup", "/setup.md")


@pytest.fixture(scope="module")
def stack(databases: Databases, servers: ServerAddresses, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """One replica that knows its public address and calls itself Acme."""
    told = {"public_url": PUBLIC, "opencode_provider_id": "acme", "opencode_provider_name": "Acme"}
    config = {"models": MODELS, "settings": told}
    folder = tmp_path_factory.mktemp("onboarding")
    with running_stack(databases, servers, folder, engines=[EngineProcess("sim")], config=config) as running:
        yield running


def told(stack: Stack, key: str | None) -> dict[str, Any]:
    """Return what OpenCode is told for a key."""
    answer = stack.gateway.http(key).get(CONFIG)
    assert (answer.status, answer.headers["content-type"]) == (200, "application/json")
    assert (answer.headers["cache-control"], answer.headers["vary"]) == ("no-store", "authorization")
    document: dict[str, Any] = answer.document
    return document


def test_the_configuration_is_that_of_the_key(stack: Stack) -> None:
    document = told(stack, stack.tenant(models=["secret-writer"]).key)
    assert document["problem"] is None
    (provider,) = document["config"]["provider"].items()
    assert provider[0] == "acme"
    assert provider[1]["name"] == "Acme"
    assert provider[1]["options"] == {"baseURL": f"{PUBLIC}/v1", "apiKey": "{env:PENSTOCK_KEY}"}
    assert list(provider[1]["models"]) == ["secret-writer"]
    assert document["config"]["model"] == document["config"]["small_model"] == "acme/secret-writer"


def test_a_price_that_is_set_is_told_from_then_on(stack: Stack, tmp_path: Path) -> None:
    key = stack.tenant(models=["secret-coder"]).key
    set_price = Penstock(tmp_path, {"PENSTOCK_POSTGRES_DSN": stack.dsn})
    assert set_price("price", "set", "secret-coder", "--input=1.5", "--output=6").code == 0

    def cost() -> object:
        return told(stack, key)["config"]["provider"]["acme"]["models"]["secret-coder"].get("cost")

    wait_for(lambda: cost() == {"input": 1.5, "output": 6.0, "cache_read": 1.5}, "the price is told")


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({}, "no-key"),
        ({"authorization": "Bearer "}, "no-key"),
        ({"authorization": "Bearer nonsense"}, "key-not-accepted"),
        ({"authorization": "Bearer sk-pst-" + "x" * 600}, "key-not-accepted"),
        ({"authorization": "Basic abc"}, "key-not-accepted"),
        ({"x-api-key": "nonsense"}, "key-not-accepted"),
    ],
)
def test_whatever_is_no_key_gets_a_configuration_that_says_so(stack: Stack, headers: dict[str, str], code: str) -> None:
    answer = stack.gateway.http().get(CONFIG, headers)
    assert answer.status == 200
    assert answer.document["problem"]["code"] == code
    assert list(answer.document["config"]["provider"]["acme"]["models"]) == [code]
    assert f"opencode auth login {PUBLIC}" in answer.document["problem"]["message"]
    assert b"secret" not in answer.body


def test_keys_that_count_no_longer_are_told_why(stack: Stack) -> None:
    revoked, expired = stack.tenant(), stack.tenant(expires_in=dt.timedelta(seconds=0.5))
    revoked.revoke()
    wait_for(lambda: told(stack, revoked.key)["problem"], "the key is revoked")
    wait_for(lambda: told(stack, expired.key)["problem"], "the key has expired")
    for key, why in ((revoked.key, "revoked"), (expired.key, "expired")):
        document = told(stack, key)
        assert document["problem"]["code"] == "key-not-accepted"
        assert why in document["problem"]["message"]
        assert "secret" not in json.dumps(document)


def test_a_key_without_models_is_told(stack: Stack) -> None:
    document = told(stack, stack.tenant(models=["gone"]).key)
    assert document["problem"] == {"code": "no-models", "message": "this key may use no model; ask who gave it to you"}


@pytest.mark.parametrize("path", PAGES)
def test_nothing_is_told_by_the_host_that_was_asked(stack: Stack, path: str) -> None:
    client = stack.gateway.http(stack.tenant().key)
    answer = client.get(path, ELSEWHERE)
    assert answer.status == 200
    assert b"evil" not in answer.body
    assert PUBLIC.encode() in answer.body
    assert client.ask("POST", path).status == 405
    assert client.ask("HEAD", path).body == b""


def test_the_login_has_a_variant_for_powershell(stack: Stack) -> None:
    client = stack.gateway.http()
    document = client.get(WELL_KNOWN).document
    assert document["auth"]["command"][:2] == ["sh", "-c"]
    assert document["auth"]["env"] == "PENSTOCK_KEY"
    assert document["remote_config"] == {
        "url": f"{PUBLIC}{CONFIG}",
        "headers": {"Authorization": "Bearer {env:PENSTOCK_KEY}"},
    }
    for path in (f"{WELL_KNOWN}?shell=powershell", f"/?shell=powershell{WELL_KNOWN}"):
        assert client.get(path).document["auth"]["command"][0] == "powershell"
    for query in ("shell=sh", "shell=';rm", "a=b&" * 100, "%ff", ""):
        assert client.get(f"{WELL_KNOWN}?{query}").document == document


def test_the_page_is_one_text_and_runs_nothing(stack: Stack) -> None:
    client = stack.gateway.http()
    page, text = client.get("/setup"), client.get("/setup.md")
    assert (page.headers["content-type"], text.headers["content-type"]) == (
        "text/html; charset=utf-8",
        "text/markdown; charset=utf-8",
    )
    policy = page.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    assert "frame-ancestors 'none'" in policy
    for tool in ("OpenCode", "Codex", "Claude Code", "OpenAI's SDK", "Anthropic's SDK", "LangChain", "curl"):
        assert f"## {tool}\n" in text.body.decode()
        assert f"<h2>{tool}</h2>" in page.body.decode()
    for body in (page.body.decode(), text.body.decode()):
        assert "secret" not in body
        assert "<script" not in body
        assert not any(word in body for word in ("http://", "src=", "@import", "url("))
        assert f"opencode auth login {PUBLIC}" in body
        assert "acme" in body
    # To put a name for the placeholder everywhere leaves the names of variables as they are.
    named = text.body.decode().replace("MODEL-NAME", "coder")
    assert "export ANTHROPIC_MODEL=coder\nexport ANTHROPIC_DEFAULT_OPUS_MODEL=coder\n" in named
    home = client.get("/")
    assert (home.status, home.headers["location"]) == (303, "setup")


def test_a_configuration_is_printed_for_a_project(stack: Stack, tmp_path: Path) -> None:
    key = stack.tenant(models=["secret-coder"]).key
    penstock = Penstock(tmp_path, {"PENSTOCK_KEY": key, "TEAM_KEY": "sk-pst-nobody"})
    made = penstock("opencode", "config", f"--base-url={stack.gateway.base_url}")
    document = made.document
    options = document["provider"]["acme"]["options"]
    assert options == {"baseURL": stack.gateway.base_url, "apiKey": "{env:PENSTOCK_KEY}"}
    assert list(document["provider"]["acme"]["models"]) == ["secret-coder"]
    assert key not in made.out

    refused = penstock("opencode", "config", f"--base-url={stack.gateway.url}", "--key-env=TEAM_KEY")
    assert (refused.code, refused.out, refused.err.count("\n")) == (1, "", 1)
    assert "the API key is missing or not valid" in refused.err
    dev = {"base_url": stack.gateway.base_url, "api_key": key, "pid": stack.gateway.pid}
    (tmp_path / ".penstock").mkdir()
    (tmp_path / ".penstock" / "dev.json").write_text(json.dumps(dev))
    assert Penstock(tmp_path, {})("opencode", "config").document == document, "as a `penstock dev` of the folder tells"


def test_what_cannot_be_asked_is_told_in_a_line(stack: Stack, tmp_path: Path) -> None:
    key = "sk-pst-never-shown"
    for arguments, code, why in (
        ([], 1, "give --base-url"),
        (["--base-url=gateway.example.com"], 1, "must be an http:// or https:// address"),
        (["--base-url=http://127.0.0.1:1"], 1, "does not answer"),
        ([f"--base-url=http://127.0.0.1:{stack.gateway.metrics_port}"], 1, "is no Penstock gateway"),
        ([f"--key-env={key}"], 2, "the name of an environment variable"),
        ([f"--base-url={stack.gateway.url}", "--key-env=NOT_SET"], 1, "set NOT_SET"),
    ):
        done = Penstock(tmp_path, {"PENSTOCK_KEY": key})("opencode", "config", *arguments)
        assert (done.code, done.out) == (code, ""), done
        assert why in done.err
        assert key not in done.err


def test_without_an_address_of_its_own_it_speaks_of_this_machine_and_says_so(stack: Stack, tmp_path: Path) -> None:
    config = write_config(tmp_path / "penstock.yaml", [stack.engine.url])
    with GatewayProcess(config, stack.dsn, stack.redis_url, host="0.0.0.0") as gateway:  # noqa: S104 - beyond loopback is what is tested
        document = gateway.http().get(WELL_KNOWN, ELSEWHERE).document
        assert document["remote_config"]["url"] == f"{gateway.url}{CONFIG}"
        (warning,) = [line for line in gateway.log_lines() if line["event"] == "public_url_not_set"]
        assert (warning["level"], warning["told"]) == ("warning", gateway.url)
    assert not [line for line in stack.gateway.log_lines() if line["event"] == "public_url_not_set"]
