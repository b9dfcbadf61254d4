"""Who calls the control plane: a credential or a person, how far it reaches, and what the audit log says of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

import msgspec

if TYPE_CHECKING:
    from gateway.admin.database import Database
    from gateway.admin.scope import Scope

AGENT_CHARS_MAX = 200


@dataclass(frozen=True, slots=True)
class Caller:
    """Somebody who was recognised.

    `id` is the credential's, or the user's when a person calls; `credential` the public id of the admin key that was
    shown, None where there was none.
    """

    kind: Literal["admin_key", "user", "local"]
    id: str
    name: str
    scope: Scope
    credential: str | None = None


class SignIn(Protocol):
    """Recognises tokens of an identity provider, so that they can be shown instead of an admin key."""

    async def verify(self, token: str) -> object:
        """Return the identity that a token proves. No database is asked, the provider may be.

        Raises InvalidKey, and Unavailable while the provider does not answer.
        """

    async def caller(self, db: Database, identity: object) -> Caller:
        """Return who that is here. Raises InvalidKey for somebody unknown or deleted."""


async def set_actor(db: Database, caller: Caller, *, address: str, agent: str, request_id: str) -> None:
    """Say for the rest of the transaction who changes things, which the triggers of the audit log write down."""
    actor = {
        "kind": caller.kind,
        "id": caller.id,
        "name": caller.name,
        "credential": caller.credential,
        "address": address,
        "agent": agent[:AGENT_CHARS_MAX],
        "request_id": request_id,
    }
    text = msgspec.json.encode({name: value for name, value in actor.items() if value}).decode()
    await db.execute("SELECT set_config('penstock.actor', $1, true)", text)
