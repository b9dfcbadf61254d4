"""Names of tenants, and references to them: wherever a person says which one, a name or an id will do.

A name can therefore not look like an id. Everything that comes in is bounded and printable, so it can be quoted in a
message of one line.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar
from uuid import UUID

from gateway.errors import InvalidRequest, NotFound

if TYPE_CHECKING:
    from collections.abc import Sequence

NAME_CHARS_MAX = 200
MODELS_MAX = 100

T = TypeVar("T")


def checked_name(name: str, param: str = "name") -> str:
    """Return `name`; raise InvalidRequest unless it has 1 to 200 printable characters and is no id."""
    if not name or name != name.strip():
        raise InvalidRequest(f"{param} must not be empty, nor start or end with a space", param=param)
    if len(name) > NAME_CHARS_MAX:
        raise InvalidRequest(f"{param} is longer than {NAME_CHARS_MAX} characters", param=param)
    if not name.isprintable():
        raise InvalidRequest(f"{param} holds a character that cannot be printed", param=param)
    if as_id(name) is not None:
        raise InvalidRequest(f"{param} looks like an id; choose another", param=param)
    return name


def tenant_name(name: str) -> str:
    """Return a name that an organization, team or user may have: it stands in addresses, `/admin/v1/teams/NAME`.

    Raises InvalidRequest as `checked_name` does, and for a slash, which servers and proxies take for a part's end.
    """
    if "/" in name or name in {".", ".."}:
        raise InvalidRequest("name must not hold a slash, nor be . or ..: it stands in addresses", param="name")
    return checked_name(name)


def checked_models(models: tuple[str, ...]) -> tuple[str, ...]:
    """Return model names of penstock.yaml without repetitions; whether they exist there is not known here."""
    if not models or len(models) > MODELS_MAX:
        raise InvalidRequest(f"models must list 1 to {MODELS_MAX} names", param="models")
    return tuple(dict.fromkeys(checked_name(model, "models") for model in models))


def as_id(reference: str) -> UUID | None:
    """Return the id that a reference is, None when it is a name."""
    if len(reference) > 45:  # the longest spelling is urn:uuid:…
        return None
    try:
        return UUID(reference)
    except ValueError:
        return None


def id_and_name(reference: str) -> tuple[UUID | None, str | None]:
    """Return a reference as the two parameters of a query: exactly one is set, none when no such name can exist."""
    identifier = as_id(reference)
    if identifier is not None:
        return identifier, None
    return None, reference if reference.isprintable() and len(reference) <= NAME_CHARS_MAX else None


def the_only(rows: Sequence[T], kind: str, reference: str) -> T:
    """Return the one thing that a reference to a `kind` found, given at most two.

    Raises NotFound, and InvalidRequest when the name occurs in several organizations.
    """
    if not rows:
        raise NotFound(f"no {kind} {quoted(reference)}", param=kind)
    if len(rows) > 1:
        message = f"several organizations have a {kind} {quoted(reference)}: name the organization too, or give the id"
        raise InvalidRequest(message, param=kind)
    return rows[0]


def quoted(reference: str) -> str:
    """Return a reference for a message: one line, bounded."""
    return repr(reference[:80])
