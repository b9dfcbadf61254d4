"""How far a caller of the control plane can see: the whole platform, one organization, or a person's part of one.

Every query takes a Scope and applies it in SQL, so that what lies outside is not found rather than refused: an id of
another organization tells nobody that it exists.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Final, Self

from gateway.errors import Forbidden

if TYPE_CHECKING:
    from uuid import UUID


class Role(StrEnum):
    """What a caller is, from the widest reach to the narrowest."""

    PLATFORM_ADMIN = "platform_admin"
    ORGANIZATION_ADMIN = "organization_admin"
    TEAM_ADMIN = "team_admin"
    MEMBER = "member"


class PersonRole(StrEnum):
    """What a user is in its organization, or beyond it."""

    MEMBER = "member"
    ORGANIZATION_ADMIN = "organization_admin"
    PLATFORM_ADMIN = "platform_admin"


class MembershipRole(StrEnum):
    """What a user is in one team."""

    MEMBER = "member"
    TEAM_ADMIN = "team_admin"


_WHO = {
    Role.PLATFORM_ADMIN: "the platform's administrator",
    Role.ORGANIZATION_ADMIN: "an organization's administrator",
    Role.TEAM_ADMIN: "a team's administrator",
    Role.MEMBER: "a member",
}


@dataclass(frozen=True, slots=True)
class Scope:
    """The reach of a caller. `organization_id` None is the platform: every organization.

    `teams` None is the whole organization. A tuple is a person who reaches the teams that it administers, maybe none,
    and what is its own (`user_id`); `member_of` are all teams that the person is in.

    In SQL the organization is one parameter, `($1::uuid IS NULL OR organization_id = $1)`, and what a person reaches
    two more: `($2::uuid[] IS NULL OR team_id = ANY($2) OR user_id = $3)`.
    """

    organization_id: UUID | None = None
    user_id: UUID | None = None
    teams: tuple[UUID, ...] | None = None
    member_of: tuple[UUID, ...] = ()

    @property
    def role(self) -> Role:
        """What the caller is."""
        if self.organization_id is None:
            return Role.PLATFORM_ADMIN
        if self.teams is None:
            return Role.ORGANIZATION_ADMIN
        return Role.TEAM_ADMIN if self.teams else Role.MEMBER

    @property
    def visible_teams(self) -> tuple[UUID, ...] | None:
        """The teams that the caller may know of, None for all of its organization."""
        return None if self.teams is None else self.member_of

    def within(self, organization_id: UUID) -> Self:
        """Return the same reach, cut down to one organization."""
        return replace(self, organization_id=organization_id)

    def require_platform(self, what: str) -> None:
        """Raise Forbidden unless the caller administers the platform; `what` completes "may not ..."."""
        if self.role is not Role.PLATFORM_ADMIN:
            raise Forbidden(f"{_WHO[self.role]} may not {what}")

    def require_organization(self, what: str) -> None:
        """Raise Forbidden unless the caller administers the platform or its organization."""
        if self.teams is not None:
            raise Forbidden(f"{_WHO[self.role]} may not {what}")

    def require_team(self, team_id: UUID, what: str) -> None:
        """Raise Forbidden unless the caller administers this team, which it can see, or more than it."""
        if self.teams is not None and team_id not in self.teams:
            raise Forbidden(f"{_WHO[Role.MEMBER]} of this team may not {what}")

    def require_grant(self, role: PersonRole) -> None:
        """Raise Forbidden when `role`, which somebody has or is to have, is wider than the caller's own."""
        if role is PersonRole.PLATFORM_ADMIN:
            self.require_platform("say who administers the platform")
        elif role is PersonRole.ORGANIZATION_ADMIN:
            self.require_organization("say who administers the organization")


PLATFORM: Final = Scope()
