"""What penstock.yaml makes of a person: organization, role and teams, by the groups that the provider tells. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from gateway.admin.names import quoted
from gateway.admin.scope import Role
from gateway.admin.sign_in.refusals import NoGroup, NotAdmitted
from gateway.admin.sign_in.tokens import claim_at
from gateway.domain.sign_in import GroupRole

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from gateway.admin.sign_in.tokens import Identity
    from gateway.domain.sign_in import Grant, SignInConfig

_ABOVE_TEAMS: Final = (
    (GroupRole.PLATFORM_ADMIN, Role.PLATFORM_ADMIN),
    (GroupRole.ORGANIZATION_ADMIN, Role.ORGANIZATION_ADMIN),
)
_UNTOLD: Final = (
    "your token says nothing of groups; who runs the gateway sets oidc_scopes and oidc_groups_claim to what the"
    " identity provider calls them, and lets it list them in ID tokens"
)
_TOO_MANY: Final = (
    "you are in so many groups that your token does not list them; who runs the gateway lets the identity provider list"
    " only those that are assigned to it"
)
_UNMAPPED: Final = (
    "none of your groups may use this gateway; ask who runs it to add one of them, or you to one that may"
)


@dataclass(frozen=True, slots=True)
class Landing:
    """Where somebody belongs, as penstock.yaml names it; nobody has looked whether it exists.

    `role` is the one above teams, `member` when there is none; `teams` the role in each team, by name or id.
    """

    organization: str
    role: Role = Role.MEMBER
    teams: Mapping[str, Role] = field(default_factory=dict)


def landing(config: SignInConfig, identity: Identity) -> Landing:
    """Return where somebody belongs. Of several groups that say something of the same team, the highest role counts.

    A person is in one organization: that of the claim, else the one of its groups' grants, where a grant that names
    none is of the default. Grants in other organizations than the claim's are not for this person. A platform's
    administrator is at home wherever its other groups say.

    Raises:
        NoGroup: no group is mapped, and such people are not admitted.
        NotAdmitted: which organization it is cannot be told.
    """
    grants = [config.grants[group] for group in dict.fromkeys(identity.groups) if group in config.grants]
    if not grants and not config.admit_unmapped:
        raise NoGroup(_UNMAPPED) if identity.groups_told else NotAdmitted(_untold(identity))
    claimed = _claimed(config, identity)
    default = claimed or config.organization
    organization = claimed or _of_grants(grants, default)
    mine = [grant for grant in grants if (grant.organization or default) == organization or _is_platform(grant)]
    if not mine and not config.admit_unmapped:
        raise NoGroup(f"none of your groups is of your organization, {quoted(organization)}; ask who runs the gateway")
    teams: dict[str, Role] = {}
    for grant in mine:
        for team in grant.teams:
            highest = grant.role is GroupRole.TEAM_ADMIN or teams.get(team) is Role.TEAM_ADMIN
            teams[team] = Role.TEAM_ADMIN if highest else Role.MEMBER
    roles = {grant.role for grant in mine}
    return Landing(organization, next((here for wide, here in _ABOVE_TEAMS if wide in roles), Role.MEMBER), teams)


def _claimed(config: SignInConfig, identity: Identity) -> str | None:
    """Return the organization that the token names, None where it says nothing of that. Raises NotAdmitted."""
    if config.organization_claim is None:
        return None
    claimed = claim_at(identity.claims, config.organization_claim)
    if isinstance(claimed, list) and len(claimed) == 1:
        claimed = claimed[0]
    if claimed is not None and not (isinstance(claimed, str) and claimed):
        raise NotAdmitted("your token names no single organization; ask who runs the gateway")
    return claimed


def _of_grants(grants: Sequence[Grant], default: str | None) -> str:
    deciding = [grant for grant in grants if not _is_platform(grant)] or grants
    named = {grant.organization or default for grant in deciding} or {default}
    if len(named) > 1:
        raise NotAdmitted("your groups are of several organizations, and a person is in one; ask who runs the gateway")
    organization = named.pop()
    if organization is None:
        raise NotAdmitted(
            "neither your token nor your groups say which organization is yours; ask who runs the gateway"
        )
    return organization


def _untold(identity: Identity) -> str:
    """Return why a token says nothing of groups: a distributed claim (OpenID Connect Core, 5.6.2) is elsewhere."""
    elsewhere = identity.claims.get("_claim_names")
    return _TOO_MANY if isinstance(elsewhere, dict) and "groups" in elsewhere else _UNTOLD


def _is_platform(grant: Grant) -> bool:
    return grant.role is GroupRole.PLATFORM_ADMIN
