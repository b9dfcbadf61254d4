"""Options that name models, held against the penstock.yaml of the gateway that is administered."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from gateway.admin.model_names import check_models
from gateway.settings import load_config

if TYPE_CHECKING:
    from pathlib import Path

UncheckedModel: TypeAlias = Annotated[
    bool,
    typer.Option(
        "--unchecked-model", help="Take names of models that penstock.yaml does not have, such as one to be added soon."
    ),
]


def check_named(models: tuple[str, ...], config: Path | None, *, unchecked: bool) -> None:
    """Hold names against the file at `config`, where there is one and they are not to be `unchecked`.

    Raises InvalidRequest as `check_models` does, ConfigFileError for a file that cannot be read.
    """
    if models and config is not None and not unchecked:
        known = load_config(config, with_credentials=False)
        check_models(models, known, param="model", anyway="--unchecked-model")


def note_unknown(models: tuple[str, ...], config: Path | None, *, unchecked: bool, as_json: bool) -> None:
    """Tell people, when the work is done, that its names were held against nothing."""
    if models and config is None and not unchecked and not as_json:
        verb = "was" if len(models) == 1 else "were"
        what = f"no penstock.yaml is known here (set PENSTOCK_CONFIG), so {', '.join(models)} {verb} not checked"
        typer.echo(f"note: {what}", err=True)
