"""Every operation of the control plane, as everybody, with ids that are one's own and that are not.

What is foreign is not answered, not changed, and not told to exist: a foreign id and one of nothing are answered
alike, byte by byte but for the id.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING
from uuid import uuid4

import httpx2
import pytest

from gateway.admin.database import session_on
from tests.support.walk.calls import Answer, Endpoint, application, call, endpoints
from tests.support.walk.state import rows_of
from tests.support.walk.table import OPERATIONS, PLAIN, Operation
from tests.support.walk.world import MEMBER, ORGANIZATION_ADMIN, ROLES, TEAM_ADMIN, Things, World, make_world

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from gateway.admin.database import Database
    from tests.support.servers import Databases

NAMING = frozenset(
    {"organization", "team", "teams", "user", "key", "subject", "webhook", "delivery", "admin_key", "id"}
)
"""Fields of bodies that name something of a tenant, wherever they are."""

SEES_LESS = {ORGANIZATION_ADMIN: ("foreign",), TEAM_ADMIN: ("foreign", "neighbour"), MEMBER: ("foreign", "neighbour")}


@dataclass
class Walk:
    """One way through: the database's transaction, the world in it, and what is asked."""

    db: Database
    client: httpx2.AsyncClient
    world: World
    before: frozenset[str]

    async def asked(
        self, endpoint: Endpoint, operation: Operation, references: dict[str, str], token: str | None
    ) -> tuple[Answer, frozenset[str]]:
        """Send a request and take back what it did; return the answer and the rows that came, changed or went."""
        undo = self.db.transaction()
        await undo.start()
        try:
            answer = await call(self.client, endpoint, operation, references, token)
            after = self.before if endpoint.method == "GET" else await rows_of(self.db)
        finally:
            await undo.rollback()
        return answer, self.before ^ after

    def own(self, role: str, operation: Operation) -> dict[str, str]:
        """Return references to what is the role's own."""
        things = self.world.own[role]
        return {slot: things.of[kind]["id"] for slot, kind in operation.refs.items()}


@pytest.fixture(scope="module")
def database(databases: Databases) -> Iterator[str]:
    with databases.migrated() as dsn:
        yield dsn


@pytest.fixture
async def walk(database: str) -> AsyncIterator[Walk]:
    """A walk in one transaction, which is taken back at its end."""
    async with session_on(database) as db:
        all_of_it = db.transaction()
        await all_of_it.start()
        world = await make_world(db)
        transport = httpx2.ASGITransport(application(db))
        async with httpx2.AsyncClient(transport=transport, base_url="http://gateway") as client:
            yield Walk(db, client, world, await rows_of(db))
        await all_of_it.rollback()


def everything(walk: Walk) -> Iterator[tuple[str, Endpoint, Operation]]:
    document = application(walk.db).openapi()
    for name, endpoint in endpoints(document).items():
        for operation in OPERATIONS[name]:
            yield name, endpoint, operation


async def test_every_operation_is_in_the_table_with_all_that_it_names(walk: Walk) -> None:
    found = endpoints(application(walk.db).openapi())
    assert found.keys() == OPERATIONS.keys()
    for name, endpoint in found.items():
        named = {slot for operation in OPERATIONS[name] for slot in operation.refs}
        plain = {f"query.{each}" for each in PLAIN} | {f"path.{each}" for each in OPERATIONS[name][0].path}
        taken = {slot for slot in endpoint.parameters - plain if not slot.startswith("header.")}
        assert taken | {f"body.{each}" for each in endpoint.body & NAMING} == named, name


async def test_every_role_gets_what_is_its_own_and_nothing_else(walk: Walk) -> None:
    for name, endpoint, operation in everything(walk):
        for role in ROLES:
            token, hidden = walk.world.tokens[role], walk.world.hidden[role]
            answer, changed = await walk.asked(endpoint, operation, walk.own(role, operation), token)
            where = f"{name} {operation.body} as {role}: {answer}"
            assert answer.status == operation.status(role), where
            assert not [word for word in hidden if word in answer.text], where
            assert not [row for row in changed for word in hidden if word in row], where
            assert answer.status < 400 or not changed, where


async def test_who_shows_nothing_or_a_revoked_key_gets_nothing(walk: Walk) -> None:
    for name, endpoint, operation in everything(walk):
        for token in (None, walk.world.revoked):
            answer, changed = await walk.asked(endpoint, operation, walk.own(MEMBER, operation), token)
            expected = operation.status(MEMBER) if operation.public else 401
            assert (answer.status, changed) == (expected, frozenset()), f"{name}: {answer}"


@pytest.mark.parametrize("role", SEES_LESS)
async def test_what_is_foreign_is_as_if_it_did_not_exist(walk: Walk, role: str) -> None:
    for name, endpoint, operation in everything(walk):
        for slot, kind in operation.refs.items():
            for whose in SEES_LESS[role]:
                things: Things = getattr(walk.world, whose)
                if kind not in things.of or (whose == "neighbour" and (role, slot) in operation.reaches):
                    continue
                for form, reference in things.of[kind].items():
                    await refused(walk, role, (name, endpoint, operation), (slot, form, reference))


async def refused(walk: Walk, role: str, asked: tuple[str, Endpoint, Operation], foreign: tuple[str, str, str]) -> None:
    """Hold an answer for something foreign, in the place of what is the role's own, against one for nothing."""
    name, endpoint, operation = asked
    slot, form, reference = foreign
    nothing = str(uuid4()) if form == "id" else reference[::-1]
    answers = []
    for each in (reference, nothing):
        own = walk.own(role, operation)
        answer, changed = await walk.asked(endpoint, operation, own | {slot: each}, walk.world.tokens[role])
        text = answer.text.replace(each, "…")
        where = f"{name} {operation.body} as {role} with {slot} = {each}: {answer}"
        assert not changed, where
        assert not [word for word in walk.world.hidden[role] if word in text], where
        assert answer.status >= 400 or endpoint.method == "GET", where
        answers.append(Answer(answer.status, text))
    assert answers[0] == answers[1], f"{name} {operation.body} as {role} with {slot}, a {form}"
