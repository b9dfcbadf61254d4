"""Reads single fields of a body; what is of another type is refused by name. Null is as good as missing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from gateway.errors import InvalidRequest

if TYPE_CHECKING:
    from gateway.domain.call import Fields


def read_value(fields: Fields, name: str, kind: type, expected: str) -> Any:
    """Return a field as `kind`, None where it is missing or null. Raises InvalidRequest that tells what is expected."""
    raw = fields.get(name)
    if raw is None or bytes(raw) == b"null":
        return None
    try:
        return msgspec.json.decode(raw, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise InvalidRequest(f"'{name}' must be {expected}", param=name) from None


def read_string(fields: Fields, name: str) -> str | None:
    """Return a text; see `read_value`."""
    value: str | None = read_value(fields, name, str, "a string")
    return value


def read_boolean(fields: Fields, name: str) -> bool:
    """Return a truth value, False where there is none; see `read_value`."""
    return bool(read_value(fields, name, bool, "true or false"))


def read_integer(fields: Fields, name: str, lowest: int, highest: int) -> int | None:
    """Return a whole number between these bounds, both included; see `read_value`."""
    value: int | None = read_value(fields, name, int, "a whole number")
    if value is not None and not lowest <= value <= highest:
        raise InvalidRequest(f"'{name}' must be from {lowest} to {highest}", param=name)
    return value
