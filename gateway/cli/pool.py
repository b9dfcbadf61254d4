"""`penstock pool`: pools of engines as a gateway has them, to be read. penstock.yaml is where they are changed."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from gateway.cli.on_gateway import on_gateway
from gateway.cli.options import Json
from gateway.cli.output import answer_rows, emit_json, emit_line, emit_table, shown

if TYPE_CHECKING:
    from gateway.cli.api import Api

app = typer.Typer(help="Pools of engines, as a gateway sees them now.", no_args_is_help=True, add_completion=False)

_NO_POOLS: Final = "no pools: penstock.yaml has none; where no gateway is asked, PENSTOCK_CONFIG names the file"


@app.command("list")
@on_gateway
def list_(api: "Api", *, as_json: Json = False) -> None:
    """List the pools, in the order of penstock.yaml. Without a gateway that runs, nobody knows which are available."""
    found = api.get("pools")["data"]
    columns = {
        "name": "name",
        "kind": "engine_kind",
        "models": "models",
        "available": "available",
        "concurrency": "concurrency",
        "engines": "count",
    }
    rows = found if as_json else [pool | {"count": _count(pool)} for pool in found]
    answer_rows(rows, columns, empty=_NO_POOLS, as_json=as_json)


@app.command()
@on_gateway
def show(
    api: "Api", pool: Annotated[str, typer.Argument(metavar="POOL", help="Its name.")], *, as_json: Json = False
) -> None:
    """Show a pool and its engines, as one replica of the gateway sees them now."""
    found = api.get("pools", pool)
    if as_json:
        emit_json(found)
        return
    emit_line(f"pool {found['name']} ({found['engine_kind']}) serves: {shown(found['models'])}")
    names = ("endpoint", "up", "ejected", "busy", "in_flight")
    columns = {name.replace("_", " "): name for name in names}
    emit_table(columns, found["engines"] or (), empty="its engines are told to the platform's administrator alone")


def _count(pool: Mapping[str, Any]) -> int | None:
    return None if pool["engines"] is None else len(pool["engines"])
