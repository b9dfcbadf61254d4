"""The section `sign_in:` of penstock.yaml, and the settings of the identity provider."""

from __future__ import annotations

import pytest

from gateway.domain.sign_in import Grant, GroupRole
from gateway.errors import ConfigError
from gateway.settings import ConfigFileError, load_settings, parse_config

BASE = """\
pools:
  gpu: {engine: vllm, endpoints: [http://10.0.0.1:8000]}
models:
  sim: {pool: gpu}
"""


def test_groups_become_grants() -> None:
    config = parse_config(
        BASE
        + """\
sign_in:
  organization: acme
  unmapped: member
  groups:
    admins: {role: platform_admin}
    bosses: {role: organization_admin, organization: umbrella}
    ml: {team: ml}
    leads: {role: team_admin, team: [ml, data]}
"""
    ).sign_in
    assert (config.organization, config.organization_claim, config.admit_unmapped) == ("acme", None, True)
    assert dict(config.grants) == {
        "admins": Grant(GroupRole.PLATFORM_ADMIN),
        "bosses": Grant(GroupRole.ORGANIZATION_ADMIN, "umbrella"),
        "ml": Grant(GroupRole.MEMBER, None, ("ml",)),
        "leads": Grant(GroupRole.TEAM_ADMIN, None, ("ml", "data")),
    }


def test_without_the_section_nobody_is_mapped() -> None:
    config = parse_config(BASE).sign_in
    assert (dict(config.grants), config.admit_unmapped, config.organization) == ({}, False, None)


@pytest.mark.parametrize(
    ("section", "problem"),
    [
        ("{unmapped: member}", "5:21: sign_in.unmapped: needs organization or organization_claim"),
        ("{unmapped: perhaps}", "5:21: sign_in.unmapped: "),
        ("{groups: {a: {role: boss}}}", "5:30: sign_in.groups.a.role: must be platform_admin, organization_admin"),
        ("{groups: {a: {role: member}}}", "5:20: sign_in.groups.a.organization: is required, since sign_in has"),
        ("{organization: x, groups: {a: {role: team_admin}}}", "5:47: sign_in.groups.a.role: team_admin needs a team"),
        (
            "{organization: x, groups: {a: {role: platform_admin, team: t}}}",
            "5:63: sign_in.groups.a.team: administrators of more than a team are given no team",
        ),
        ("{organization: x, groups: {a: {teams: t}}}", "5:41: sign_in.groups.a.teams: is not a known key"),
        ("{organization: x, groups: {a: {team: ''}}}", "5:47: sign_in.groups.a.team"),
    ],
)
def test_mistakes_are_told_with_their_place(section: str, problem: str) -> None:
    with pytest.raises(ConfigFileError) as raised:
        parse_config(f"{BASE}sign_in: {section}\n", "p.yaml")
    assert f"p.yaml:{problem}" in str(raised.value)


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        ("oidc_issuer", "http://id.example.com", "must begin with https://"),
        ("oidc_issuer", "https://user:word@id.example.com", "without query and password"),
        ("oidc_issuer", "https://id.example.com?x=1", "without query and password"),
        ("oidc_scopes", "profile email", "must be scopes separated by spaces, `openid` among them"),
        ("oidc_session_s", "43201", "must be at most 43200"),
        ("oidc_session_s", "60", "must be at least 300"),
    ],
)
def test_settings_out_of_bounds_are_refused(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, problem: str
) -> None:
    monkeypatch.setenv(f"PENSTOCK_{name.upper()}", value)
    with pytest.raises(ConfigError, match=f"PENSTOCK_{name.upper()} ") as raised:
        load_settings()
    assert problem in str(raised.value)
    assert "word" not in str(raised.value).partition("password")[0]


def test_an_issuer_is_kept_letter_by_letter(monkeypatch: pytest.MonkeyPatch) -> None:
    for issuer in ("https://id.example.com/", "https://id.example.com", "http://127.0.0.1:3000"):
        monkeypatch.setenv("PENSTOCK_OIDC_ISSUER", issuer)
        assert load_settings().oidc_issuer == issuer


def test_the_secret_of_the_client_stands_in_no_file() -> None:
    with pytest.raises(ConfigFileError, match=r"can only be set in the environment, as PENSTOCK_OIDC_CLIENT_SECRET"):
        parse_config(BASE + "settings: {oidc_client_secret: x}\n")
