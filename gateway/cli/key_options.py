"""How keys are changed, rotated and shown on the command line: options, and the command `penstock key rotate`."""

import datetime as dt
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Final, TypeAlias

import typer

from gateway.admin.key_changes import GRACE_DEFAULT, KeyChange, rotate_key
from gateway.admin.limit_values import REMOVED
from gateway.admin.scope import PLATFORM
from gateway.admin.times import parse_duration, parse_lifetime
from gateway.cli.connect import control
from gateway.cli.options import Json, PostgresDsn
from gateway.cli.output import emit_json, emit_line, shown

if TYPE_CHECKING:
    from gateway.admin.key_changes import Texts
    from gateway.admin.keys import ApiKey

NONE: Final = "none"

KeyId: TypeAlias = Annotated[str, typer.Argument(metavar="ID", help="Id of the key, in either form.")]
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
_Grace = Annotated[
    str | None,
    typer.Option("--grace", metavar="24h", help="How long the text before counts, too: 0s to 30d. Default: 24h."),
]


def listed(text: str) -> tuple[str, ...]:
    """Return what is listed with commas between."""
    return tuple(part.strip() for part in text.split(","))


def changed(*, name: str | None, models: str | None, addresses: list[str] | None, expires_in: str | None) -> KeyChange:
    """Return what options ask for; `none` takes a value away. Raises InvalidRequest."""
    expires_at = None
    if expires_in is not None and expires_in != NONE:
        expires_at = dt.datetime.now(dt.UTC) + parse_lifetime(expires_in, "--expires-in")
    return KeyChange(
        name=REMOVED if name == NONE else name,
        models=_texts(None if models is None else listed(models)),
        addresses=_texts(tuple(addresses) if addresses else None),
        expires_at=REMOVED if expires_in == NONE else expires_at,
    )


def rotate(key: KeyId, *, grace: _Grace = None, as_json: Json = False, postgres_dsn: PostgresDsn = None) -> None:
    """Give a key a new text, and show it: it is not kept and cannot be shown again. The one before counts for a while.

    Its id, limits and usage stay. A key has two texts at most: rotated again meanwhile, the oldest ends at once.
    """
    lasts = GRACE_DEFAULT if grace is None else parse_duration(grace, "--grace")
    to = control(postgres_dsn)
    rotated = to.run(lambda db: rotate_key(db, PLATFORM, to.peppers, key, grace=lasts))
    if as_json:
        emit_json(asdict(rotated.about) | {"key": rotated.key, "older_ended": rotated.older_ended})
        return
    about = rotated.about
    emit_line(f"key {about.public_id} of team {about.team} has a new text; it is shown only now:")
    emit_line(rotated.key)
    if lasts:
        emit_line(f"the text before counts until {shown(about.previous_expires_at)}")
    if rotated.older_ended:
        emit_line("a text from before that has ended now, earlier than was said then")


def show_key(key: "ApiKey", *, as_json: bool) -> None:
    """Write all that is known of a key."""
    if as_json:
        emit_json(key)
        return
    for field, value in asdict(key).items():
        emit_line(f"{field.replace('_', ' '):20}{shown(value)}")


def _texts(values: tuple[str, ...] | None) -> "Texts":
    return REMOVED if values == (NONE,) else values
