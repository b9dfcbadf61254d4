"""One page of a list: at most 1,000 things, after a given one. Lists are ordered by id, which never changes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from gateway.errors import InvalidRequest

if TYPE_CHECKING:
    from uuid import UUID

ROWS_MAX = 1000


@dataclass(frozen=True, slots=True)
class Page:
    """Which part of a list: up to `limit` rows whose id is greater than `after`. Raises InvalidRequest."""

    limit: int = ROWS_MAX
    after: UUID | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.limit <= ROWS_MAX:
            raise InvalidRequest(f"limit must be 1 to {ROWS_MAX}", param="limit")


FIRST_PAGE: Final = Page()
