"""The `penstock` command: one file per command group, on the service functions of `gateway.admin`.

Answers go to standard output, as tables for people or as one JSON document with `--json`; everything else, errors
included, goes to standard error. See `gateway.cli.run` for exit codes.
"""

from typing import Annotated

import typer

from gateway import __version__
from gateway.cli.lazy import COMMANDS, LazyGroup

HELP_COLUMNS_MAX = 120


def build_app() -> typer.Typer:
    """Return the whole command line as a Typer app, without importing any command."""
    app = typer.Typer(
        name="penstock",
        cls=LazyGroup,
        help="Penstock meters tokens on their way to GPUs: keys, limits and exact accounting for teams.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": HELP_COLUMNS_MAX},
    )
    app.callback()(_options)
    for name, command in COMMANDS.items():
        app.command(name, help=command.help, rich_help_panel=command.panel)(_placeholder)
    return app


def _placeholder() -> None:
    """Stand in for a command in listings; LazyGroup runs the real one."""


def _show_version(asked: bool) -> None:  # noqa: FBT001 - Typer passes an option's value by position
    if asked:
        typer.echo(f"penstock {__version__}")
        raise typer.Exit


def _options(
    *,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    del version
