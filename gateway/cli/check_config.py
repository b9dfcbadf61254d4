"""`penstock check-config FILE`: what is wrong with a penstock.yaml, with line and column, before a gateway reads it.

One line per problem on standard error, in the form that editors and CI link to; or JSON for scripts.
"""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from gateway.settings import ConfigFileError, load_config


def check_config(
    file: Annotated[Path, typer.Argument(help="The penstock.yaml to check.")],
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Answer with one JSON object on standard output.")] = False,
    credentials: Annotated[
        bool,
        typer.Option(help="Also read the credentials that the file refers to. Turn off where they are not mounted."),
    ] = True,
) -> None:
    """Check a penstock.yaml. Exits with 1 and one line per problem (file:line:column: message) when it is wrong."""
    try:
        config = load_config(file, with_credentials=credentials)
    except ConfigFileError as error:
        if as_json:
            problems = [asdict(problem) for problem in error.problems]
            typer.echo(json.dumps({"ok": False, "file": str(file), "problems": problems}))
        else:
            typer.echo(str(error), err=True)
        raise typer.Exit(1) from None
    if as_json:
        counts = {"pools": len(config.pools), "models": len(config.models)}
        typer.echo(json.dumps({"ok": True, "file": str(file), "problems": []} | counts))
    else:
        typer.echo(f"ok: {_count(len(config.pools), 'pool')}, {_count(len(config.models), 'model')}")


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
