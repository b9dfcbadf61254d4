"""What the walk goes through: organization acme with two teams and people of every role, and globex beside it."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from gateway.admin.credentials import create_admin_credential, revoke_admin_credential
from gateway.admin.keys import ApiKey, NewApiKey, create_key
from gateway.admin.limit_values import LimitValues
from gateway.admin.limits import Subject, set_limit
from gateway.admin.memberships import add_member
from gateway.admin.organizations import create_organization
from gateway.admin.scope import PLATFORM, MembershipRole, PersonRole
from gateway.admin.teams import create_team
from gateway.admin.users import User, create_user
from gateway.admin.webhook_deliveries import ping_webhook
from gateway.admin.webhooks import create_webhook
from gateway.authenticate.key import Peppers
from gateway.domain.principal import Level
from tests.support.ledger import write_usage

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gateway.admin.database import Database

PEPPERS: Final = Peppers({1: b"0" * 32})
PLATFORM_ADMIN, ORGANIZATION_ADMIN, TEAM_ADMIN, MEMBER = "platform admin", "organization admin", "team admin", "member"
ROLES: Final = (PLATFORM_ADMIN, ORGANIZATION_ADMIN, TEAM_ADMIN, MEMBER)
AT: Final = dt.datetime.now(dt.UTC) - dt.timedelta(hours=1)

Kind = str
Form = str
Forms = dict[Form, str]
"""The ways to refer to one thing: `id`, and for most `name` or `public_id`."""


@dataclass
class Things:
    """One thing of each kind, by the ways to refer to it, and all words that give them away."""

    of: dict[Kind, Forms] = field(default_factory=dict)
    words: set[str] = field(default_factory=set)

    def add(self, kind: Kind, **forms: object) -> None:
        """Keep a thing under the forms that an address may have it in."""
        self.of[kind] = {form: str(text) for form, text in forms.items()}
        self.words |= set(self.of[kind].values())


@dataclass
class World:
    """`own`: what requests are about that shall succeed, by role. `neighbour`: another team's of the same organization;
    `foreign`: another organization's. `hidden`: by role, the words that it must never be told.
    """

    tokens: dict[str, str]
    revoked: str
    own: Mapping[str, Things]
    neighbour: Things
    foreign: Things
    hidden: Mapping[str, set[str]]


async def make_world(db: Database) -> World:
    """Make it in the transaction of `db`."""
    await create_organization(db, PLATFORM, "acme")
    acme, neighbour, foreign = Things(), Things(), Things()
    boss = await create_user(db, PLATFORM, "acme-boss", organization="acme", role=PersonRole.ORGANIZATION_ADMIN)
    core = await create_team(db, PLATFORM, "acme-core", organization="acme")
    lead = await create_user(db, PLATFORM, "acme-lead", organization="acme")
    await add_member(db, PLATFORM, team=str(core.id), user=lead.name, role=MembershipRole.TEAM_ADMIN)
    dev = await _group(db, acme, "acme", core.name, "acme-dev")
    await _group(
        db, neighbour, "acme", (await create_team(db, PLATFORM, "acme-web", organization="acme")).name, "acme-ann"
    )
    await create_organization(db, PLATFORM, "globex")
    await create_team(db, PLATFORM, "globex-core", organization="globex")
    await _group(db, foreign, "globex", "globex-core", "globex-eve")
    await _owned(db, acme, "acme")
    await _owned(db, foreign, "globex")
    await create_admin_credential(db, PLATFORM, PEPPERS, name="another")
    platform = await create_admin_credential(db, PLATFORM, PEPPERS)
    gone = await create_admin_credential(db, PLATFORM, PEPPERS)
    await revoke_admin_credential(db, PLATFORM, gone.key)
    leads, leads_key = Things(acme.of | {}, set()), await _credential(db, lead)
    leads.add("admin_key", id=leads_key[1], public_id=leads_key[2])
    boss_key = await _credential(db, boss)
    devs_key = await _credential(db, dev)
    acme.add("admin_key", id=devs_key[1], public_id=devs_key[2])
    others = {str(lead.id), lead.name, str(boss.id), boss.name, leads_key[1], leads_key[2], boss_key[1], boss_key[2]}
    return World(
        tokens={
            PLATFORM_ADMIN: platform.key,
            ORGANIZATION_ADMIN: boss_key[0],
            TEAM_ADMIN: leads_key[0],
            MEMBER: devs_key[0],
        },
        revoked=gone.key,
        own={PLATFORM_ADMIN: acme, ORGANIZATION_ADMIN: acme, TEAM_ADMIN: leads, MEMBER: acme},
        neighbour=neighbour,
        foreign=foreign,
        hidden={
            PLATFORM_ADMIN: set(),
            ORGANIZATION_ADMIN: foreign.words,
            TEAM_ADMIN: foreign.words | neighbour.words,
            MEMBER: foreign.words | neighbour.words | others,
        },
    )


async def _group(db: Database, into: Things, organization: str, team: str, person: str) -> User:
    """Make a person in a team, a key of it, a rule on the key, and a request that it made."""
    user = await create_user(db, PLATFORM, person, organization=organization, teams=[team])
    made = await create_key(db, PLATFORM, PEPPERS, NewApiKey(team, organization, user.name, f"{person}-key"))
    await _limited_and_used(db, into, made.about)
    into.add("user", id=user.id, name=user.name)
    into.add("team", id=made.about.team_id, name=team)
    into.add("key", id=made.about.id, public_id=made.about.public_id)
    into.words.add(made.about.name)
    if person != "acme-dev":
        key = await _credential(db, user)
        into.add("admin_key", id=key[1], public_id=key[2])
    return user


async def _limited_and_used(db: Database, into: Things, key: ApiKey) -> None:
    for level, subject in ((Level.TEAM, key.team_id), (Level.USER, key.user_id)):
        await set_limit(db, PLATFORM, Subject(level, str(subject)), LimitValues(requests_per_minute=70))
    rule = await set_limit(db, PLATFORM, Subject(Level.KEY, str(key.id)), LimitValues(requests_per_minute=60))
    into.add("limit", id=rule.id)
    await write_usage(db, key, AT)


async def _owned(db: Database, into: Things, name: str) -> None:
    """Make what only an organization has."""
    subject = Subject(Level.ORGANIZATION, name)
    rule = await set_limit(db, PLATFORM, subject, LimitValues(requests_per_minute=600))
    into.add("organization", id=rule.organization_id, name=name)
    made = await create_webhook(db, PLATFORM, PEPPERS, url=f"https://hooks.{name}.example/", organization=name)
    into.add("webhook", id=made.about.id)
    delivery = await ping_webhook(db, PLATFORM, str(made.about.id))
    into.add("delivery", id=delivery.id)


async def _credential(db: Database, user: User) -> tuple[str, str, str]:
    """Make an admin key of a person; return its text, id and public id."""
    made = await create_admin_credential(db, PLATFORM, PEPPERS, organization=user.organization, user=str(user.id))
    return made.key, str(made.about.id), made.about.public_id
