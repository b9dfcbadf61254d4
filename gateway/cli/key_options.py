"""How keys are named, changed and shown on the command line."""

import datetime as dt
from collections.abc import Mapping
from typing import Annotated, Any, Final, TypeAlias

import typer

from gateway.admin.times import parse_lifetime
from gateway.authenticate.key import parse_key
from gateway.cli.output import cell, emit_json, emit_line

NONE: Final = "none"


def _public(reference: str) -> str:
    """Return a whole key's public id: it goes into an address, which servers and proxies write down."""
    parsed = parse_key(reference)
    return reference if parsed is None else parsed.public_id


KeyId: TypeAlias = Annotated[
    str, typer.Argument(metavar="ID", callback=_public, help="Id of the key, in either form, or the key itself.")
]
Addresses: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--address",
        metavar="NETWORK",
        help="A network that it may be used from, such as 10.0.0.0/8, or an address; may be repeated. Default: any.",
    ),
]
ChangedName: TypeAlias = Annotated[str | None, typer.Option("--name", help="What it is for; none: no name.")]
Expiry: TypeAlias = Annotated[
    str | None,
    typer.Option("--expires-in", metavar="30d", help="How long from now it is valid: 30d, 12h; none: for ever."),
]
Grace: TypeAlias = Annotated[
    str | None,
    typer.Option("--grace", metavar="24h", help="How long the text before counts, too: 0s to 30d. Default: 24h."),
]


def listed(text: str) -> tuple[str, ...]:
    """Return what is listed with commas between."""
    return tuple(part.strip() for part in text.split(","))


def changed(
    *, name: str | None, models: str | None, addresses: list[str] | None, expires_in: str | None
) -> dict[str, Any]:
    """Return the fields that options ask for; `none` takes a value away, which is null. Raises InvalidRequest."""
    change: dict[str, Any] = {
        "name": name,
        "models": None if models is None else listed(models),
        "addresses": tuple(addresses) if addresses else None,
        "expires_at": expires_in,
    }
    given = {field: value for field, value in change.items() if value is not None}
    given = {field: None if value in (NONE, (NONE,)) else value for field, value in given.items()}
    if expires_in is not None and expires_in != NONE:
        given["expires_at"] = dt.datetime.now(dt.UTC) + parse_lifetime(expires_in, "--expires-in")
    return given


def show_rotated(rotated: Mapping[str, Any], *, graceful: bool, as_json: bool) -> None:
    """Write what became of a key: its new text, and how long the one before counts, where it does."""
    if as_json:
        emit_json(rotated)
        return
    emit_line(f"key {rotated['public_id']} of team {rotated['team']} has a new text; it is shown only now:")
    emit_line(rotated["key"])
    if graceful:
        emit_line(f"the text before counts until {cell(rotated, 'previous_expires_at')}")
    if rotated["older_ended"]:
        emit_line("a text from before that has ended now, earlier than was said then")


def show_key(key: Mapping[str, Any], *, as_json: bool) -> None:
    """Write all that is known of a key."""
    if as_json:
        emit_json(key)
        return
    for field in key:
        emit_line(f"{field.replace('_', ' '):20}{cell(key, field)}")
