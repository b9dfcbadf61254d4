"""Who calls the control plane: a credential or a person, how far it reaches, and what the audit log says of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

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
