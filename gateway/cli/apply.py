"""`penstock apply`: tenants and prices as a file declares them. Shows what differs, and makes it so."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.text import Text

from gateway.cli.apply_file import read_declared
from gateway.cli.on_gateway import on_gateway
from gateway.cli.options import Json
from gateway.cli.output import PIPE_COLUMNS, emit_json, emit_line, shown
from gateway.errors import GatewayError, InvalidRequest

if TYPE_CHECKING:
    from gateway.cli.api import Api

DIFFERS = 3
"""Exit code of --exit-code where there is something to change: 1 is a failure, 2 a call that cannot be understood."""

_SIGNS = {"create": ("+", "green"), "change": ("~", "yellow"), "delete": ("-", "red")}


@on_gateway
def apply(
    api: "Api",
    *,
    file: Annotated[
        Path | None, typer.Option("-f", "--file", metavar="FILE", help="What to apply, YAML; - is standard input.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would change, and change nothing.")] = False,
    prune: Annotated[
        bool, typer.Option("--prune", help="Delete what the sections that are written do not have; no organization.")
    ] = False,
    create_keys: Annotated[
        bool, typer.Option("--create-keys", help="Make service keys that are not there, and show them this once.")
    ] = False,
    exit_code: Annotated[
        bool, typer.Option("--exit-code", help=f"Exit with {DIFFERS} where something differs, 0 where nothing does.")
    ] = False,
    unchecked_model: Annotated[
        bool, typer.Option("--unchecked-model", help="Take names of models that penstock.yaml does not have.")
    ] = False,
    schema: Annotated[bool, typer.Option("--schema", help="Print the JSON Schema of such a file, and stop.")] = False,
    as_json: Json = False,
) -> int:
    """Bring tenants, their limits and prices to what a file declares, all of it or nothing.

    What the file does not name stays as it is. Applied again, it changes nothing.
    """
    if schema:
        from gateway.admin.apply_document import json_schema  # noqa: PLC0415 - of use here alone

        emit_json(json_schema())
        return 0
    if file is None:
        raise InvalidRequest("say what to apply: -f FILE, or -f - for standard input")
    declared = read_declared(file)
    query = {"dry_run": dry_run, "prune": prune, "create_keys": create_keys, "unchecked_models": unchecked_model}
    try:
        plan = api.post("apply", body=declared.document, **query)
    except GatewayError as error:
        placed = declared.placed(error)
        if placed is None:
            raise
        raise placed from None
    if as_json:
        emit_json(plan)
    else:
        _show(plan)
    return DIFFERS if exit_code and plan["changes"] else 0


def _show(plan: Mapping[str, Any]) -> None:
    """Write what differs, a line each, and how much it is; colours where somebody looks."""
    console = Console() if sys.stdout.isatty() else Console(width=PIPE_COLUMNS, no_color=True)
    counts = dict.fromkeys(_SIGNS, 0)
    for change in plan["changes"]:
        counts[change["action"]] += 1
        sign, colour = _SIGNS[change["action"]]
        line = Text(f"{sign} {change['kind']} {' / '.join(map(shown, change['path']))}{_fields(change)}", style=colour)
        console.print(line, soft_wrap=True)
    if not plan["changes"]:
        emit_line("nothing to change: everything is as declared")
        return
    would = "would be " if plan["dry_run"] else ""
    emit_line(
        f"{counts['create']} {would}created, {counts['change']} {would}changed, {counts['delete']} {would}deleted"
    )
    for made in plan["keys"]:
        emit_line(f"key {made['name']} of team {made['team']} made; it is shown only now:")
        emit_line(made["key"])


def _fields(change: Mapping[str, Any]) -> str:
    before, after = change["before"] or {}, change["after"] or {}
    if change["action"] == "change":
        parts = [f"{name} {shown(before[name])} -> {shown(after[name])}" for name in after]
    else:
        parts = [f"{name} {shown(value)}" for name, value in (after or before).items()]
    return f": {', '.join(parts)}" if parts else ""
