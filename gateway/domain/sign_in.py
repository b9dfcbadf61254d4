"""What penstock.yaml says of people who sign in: where they land, and what their groups make of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


class GroupRole(StrEnum):
    """What a group may make of its people."""

    PLATFORM_ADMIN = "platform_admin"
    ORGANIZATION_ADMIN = "organization_admin"
    TEAM_ADMIN = "team_admin"
    MEMBER = "member"


@dataclass(frozen=True, slots=True)
class Grant:
    """What the people of one group get. `organization` None: the one in which each person lands anyway.

    `teams` are names or ids of teams of that organization, in which they have `role`; empty for the roles above teams,
    and for members of the organization alone.
    """

    role: GroupRole
    organization: str | None = None
    teams: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class SignInConfig:
    """The section `sign_in:`.

    `organization` is where people land whose groups do not say, `organization_claim` a claim that names it for each.
    `admit_unmapped`: whether people in no group of `grants` are let in, as members of their organization.
    """

    organization: str | None = None
    organization_claim: str | None = None
    admit_unmapped: bool = False
    grants: Mapping[str, Grant] = field(default_factory=lambda: MappingProxyType({}))
