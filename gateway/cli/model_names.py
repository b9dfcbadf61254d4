"""Options that name models, held against the penstock.yaml of the gateway that is administered."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

if TYPE_CHECKING:
    from gateway.cli.api import Api

UncheckedModel: TypeAlias = Annotated[
    bool,
    typer.Option(
        "--unchecked-model", help="Take names of models that penstock.yaml does not have, such as one to be added soon."
    ),
]


def note_unknown(models: tuple[str, ...], api: Api, *, unchecked: bool, as_json: bool) -> None:
    """Tell people, when the work is done, that its names were held against nothing. A gateway always has its file."""
    from gateway.cli.place import Local  # noqa: PLC0415 - completion needs no settings

    if models and isinstance(api.place, Local) and api.place.config is None and not unchecked and not as_json:
        verb = "was" if len(models) == 1 else "were"
        what = f"no penstock.yaml is known here (set PENSTOCK_CONFIG), so {', '.join(models)} {verb} not checked"
        typer.echo(f"note: {what}", err=True)
