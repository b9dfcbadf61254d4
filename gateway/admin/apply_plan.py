"""What applying a document changes, one thing after another, and where in the document a refusal belongs."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from gateway.admin.page import ROWS_MAX, Page
from gateway.errors import Conflict, Forbidden, InvalidRequest, NotFound

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Iterator
    from typing import Protocol, TypeVar
    from uuid import UUID

    from gateway.admin.database import Database
    from gateway.admin.scope import Scope
    from gateway.authenticate.key import Peppers

    class Listed(Protocol):
        """Anything that lists are made of."""

        @property
        def id(self) -> UUID: ...

    L = TypeVar("L", bound=Listed)

CHANGES_MAX = 20_000
"""How much one call may change; larger files are applied in parts."""


@dataclass(frozen=True, slots=True)
class Change:
    """One thing that is made, changed or deleted. `path` are names from the outermost tenant on.

    `before` and `after` hold the fields that differ; null where there is nothing.
    """

    action: Literal["create", "change", "delete"]
    kind: str
    path: tuple[str, ...]
    before: dict[str, Any] | None
    after: dict[str, Any] | None


@dataclass(frozen=True, slots=True)
class MadeKey:
    """The text of a key that was made, which is shown only now."""

    organization: str
    team: str
    name: str
    key: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Options:
    """How to apply. `prune`: delete what written sections do not have; `create_keys`: make keys, and show them."""

    prune: bool = False
    create_keys: bool = False


@dataclass(slots=True)
class Run:
    """One application of a document: with what, as whom, and what has come of it so far."""

    db: Database
    scope: Scope
    peppers: Peppers
    options: Options
    check_models: Callable[[Iterable[str]], None]
    changes: list[Change] = field(default_factory=list)
    made_keys: list[MadeKey] = field(default_factory=list)

    def created(self, kind: str, path: tuple[str, ...], after: dict[str, Any]) -> None:
        """Write down that something was made."""
        self._add(Change("create", kind, path, None, after))

    def changed(self, kind: str, path: tuple[str, ...], before: dict[str, Any], after: dict[str, Any]) -> None:
        """Write down that fields differ now; `before` and `after` have the same ones."""
        self._add(Change("change", kind, path, before, after))

    def deleted(self, kind: str, path: tuple[str, ...], before: dict[str, Any]) -> None:
        """Write down that something is gone."""
        self._add(Change("delete", kind, path, before, None))

    def _add(self, change: Change) -> None:
        if len(self.changes) >= CHANGES_MAX:
            raise InvalidRequest(f"more than {CHANGES_MAX:,} changes at once: apply the file in parts")
        self.changes.append(change)


def pointer(*steps: str | int) -> str:
    """Return where something stands in a document, as a JSON Pointer (RFC 6901)."""
    return "".join("/" + str(step).replace("~", "~0").replace("/", "~1") for step in steps)


@contextmanager
def at(*steps: str | int) -> Iterator[None]:
    """Let what the body refuses name this place of the document, unless it names one already."""
    try:
        yield
    except (Conflict, Forbidden, InvalidRequest, NotFound) as error:
        if not (error.param or "").startswith("/"):
            error.param = pointer(*steps)
        raise


async def every(fetch: Callable[[Page], Awaitable[list[L]]]) -> list[L]:
    """Return all rows of a list that comes in pages."""
    page = await fetch(Page())
    rows = [*page]
    while len(page) == ROWS_MAX:
        page = await fetch(Page(after=page[-1].id))
        rows += page
    return rows
