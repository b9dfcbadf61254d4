"""How far a caller of the control plane can see: the whole platform, or one organization.

Every query takes a Scope and applies it in SQL, so that what lies outside is not found rather than refused: an id of
another organization tells nobody that it exists.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from gateway.errors import Forbidden

if TYPE_CHECKING:
    from uuid import UUID


@dataclass(frozen=True, slots=True)
class Scope:
    """The reach of a caller. `organization_id` None is the platform: every organization.

    In SQL it is one parameter: `($n::uuid IS NULL OR organization_id = $n)`.
    """

    organization_id: UUID | None = None

    def require_platform(self, what: str) -> None:
        """Raise Forbidden unless the caller administers the platform; `what` completes "may not ..."."""
        if self.organization_id is not None:
            raise Forbidden(f"an organization's administrator may not {what}")


PLATFORM: Final = Scope()
