"""Which organization, role and teams penstock.yaml makes of a person's groups."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.admin.scope import Role
from gateway.admin.sign_in.mapping import Landing, landing
from gateway.admin.sign_in.refusals import NoGroup, NotAdmitted
from gateway.admin.sign_in.tokens import Identity, claim_at
from gateway.domain.sign_in import Grant, GroupRole, SignInConfig

GRANTS = {
    "platform": Grant(GroupRole.PLATFORM_ADMIN),
    "bosses": Grant(GroupRole.ORGANIZATION_ADMIN, "acme"),
    "ml": Grant(GroupRole.MEMBER, "acme", ("ml",)),
    "ml-leads": Grant(GroupRole.TEAM_ADMIN, "acme", ("ml", "data")),
    "all": Grant(GroupRole.MEMBER, None, ("everyone",)),
    "umbrella": Grant(GroupRole.ORGANIZATION_ADMIN, "umbrella"),
}
PLAIN = SignInConfig(grants=GRANTS)
DEFAULT = SignInConfig(organization="acme", grants=GRANTS)
ELSEWHERE = SignInConfig(organization="other", grants=GRANTS)
OPEN = SignInConfig(organization="acme", admit_unmapped=True, grants=GRANTS)
CLAIM = SignInConfig(organization_claim="tenant.name", grants=GRANTS)
MEMBER, ADMIN = Role.MEMBER, Role.TEAM_ADMIN


def person(*groups: str, told: bool = True, **claims: Any) -> Identity:
    """Return somebody in these groups."""
    return Identity("https://id.example", "s", "name", None, groups, told, claims)


@pytest.mark.parametrize(
    ("config", "groups", "expected"),
    [
        (PLAIN, ("ml",), Landing("acme", MEMBER, {"ml": MEMBER})),
        (PLAIN, ("ml", "ml"), Landing("acme", MEMBER, {"ml": MEMBER})),
        (PLAIN, ("ml", "ml-leads"), Landing("acme", MEMBER, {"ml": ADMIN, "data": ADMIN})),
        (PLAIN, ("ml-leads", "ml"), Landing("acme", MEMBER, {"ml": ADMIN, "data": ADMIN})),
        (PLAIN, ("bosses", "ml"), Landing("acme", Role.ORGANIZATION_ADMIN, {"ml": MEMBER})),
        (PLAIN, ("platform", "bosses"), Landing("acme", Role.PLATFORM_ADMIN)),
        (PLAIN, ("platform", "unknown", "ml"), Landing("acme", Role.PLATFORM_ADMIN, {"ml": MEMBER})),
        (DEFAULT, ("platform",), Landing("acme", Role.PLATFORM_ADMIN)),
        (DEFAULT, ("all", "ml"), Landing("acme", MEMBER, {"everyone": MEMBER, "ml": MEMBER})),
        (ELSEWHERE, ("all",), Landing("other", MEMBER, {"everyone": MEMBER})),
        (ELSEWHERE, ("ml", "platform"), Landing("acme", Role.PLATFORM_ADMIN, {"ml": MEMBER})),
        (OPEN, (), Landing("acme")),
        (OPEN, ("unknown",), Landing("acme")),
        (OPEN, ("umbrella",), Landing("umbrella", Role.ORGANIZATION_ADMIN)),
    ],
)
def test_groups_become_a_landing(config: SignInConfig, groups: tuple[str, ...], expected: Landing) -> None:
    assert landing(config, person(*groups)) == expected


@pytest.mark.parametrize(
    ("config", "groups", "words"),
    [
        (PLAIN, ("unknown",), "none of your groups may use this gateway"),
        (PLAIN, (), "none of your groups may use this gateway"),
        (PLAIN, ("ml", "umbrella"), "several organizations"),
        (ELSEWHERE, ("all", "ml"), "several organizations"),  # a role is never carried over to another organization
        (PLAIN, ("all",), "neither your token nor your groups"),
        (PLAIN, ("platform",), "neither your token nor your groups"),
        (PLAIN, ("all", "ml"), "several organizations"),
    ],
)
def test_what_cannot_be_told_is_refused(config: SignInConfig, groups: tuple[str, ...], words: str) -> None:
    with pytest.raises(NotAdmitted, match=words):
        landing(config, person(*groups))


def test_a_claim_decides_the_organization_and_which_grants_are_of_it() -> None:
    of_acme: dict[str, Any] = {"tenant": {"name": "acme"}}
    assert landing(CLAIM, person("ml", "umbrella", **of_acme)) == Landing("acme", MEMBER, {"ml": MEMBER})
    assert landing(CLAIM, person("all", "ml", **of_acme)) == Landing("acme", MEMBER, {"everyone": MEMBER, "ml": MEMBER})
    with pytest.raises(NoGroup, match="none of your groups is of your organization, 'acme'"):
        landing(CLAIM, person("umbrella", **of_acme))
    with pytest.raises(NotAdmitted, match="no single organization"):
        landing(CLAIM, person("ml", tenant={"name": ["a", "b"]}))
    assert landing(CLAIM, person("ml")).organization == "acme"  # the claim is missing: the groups say


def test_a_token_that_tells_nothing_of_groups_is_not_one_without_groups() -> None:
    with pytest.raises(NotAdmitted, match="says nothing of groups") as raised:
        landing(PLAIN, person(told=False))
    assert not isinstance(raised.value, NoGroup)
    with pytest.raises(NotAdmitted, match="in so many groups that your token does not list them") as raised:
        landing(PLAIN, person(told=False, _claim_names={"groups": "src1"}))
    assert not isinstance(raised.value, NoGroup)


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("groups", ["a"]),
        ("realm_access.roles", ["b"]),
        ("https://acme.example/groups", ["c"]),
        ("realm_access.none", None),
        ("groups.roles", None),
    ],
)
def test_claims_are_found_by_name_or_by_path(name: str, found: object) -> None:
    claims = {"groups": ["a"], "realm_access": {"roles": ["b"]}, "https://acme.example/groups": ["c"]}
    assert claim_at(claims, name) == found
