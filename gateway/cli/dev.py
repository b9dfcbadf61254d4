"""`penstock dev`: everything that Penstock needs, on this machine, with one command."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from gateway.cli.options import Auth
from gateway.dev.options import ENGINES_MAX, DevOptions


def dev(
    *,
    port: Annotated[int, typer.Option(min=0, max=65_535, help="Port of the gateway; 0 takes a free one.")] = 8080,
    data_dir: Annotated[
        Path, typer.Option(file_okay=False, help="Folder for databases, keys, configuration and logs.")
    ] = Path(".penstock"),
    engines: Annotated[int, typer.Option(min=1, max=ENGINES_MAX, help="How many simulated engines.")] = 2,
    metrics_port: Annotated[
        int | None,
        typer.Option(min=0, max=65_535, help="Port of the metrics. Default: 9464, or a free one when it is taken."),
    ] = None,
    auth: Auth = None,
) -> int:
    """Run PostgreSQL, Redis, simulated engines and one gateway here, with a demo key, until Ctrl-C.

    Nothing has to be installed before. Data stays in the data directory; DATA_DIR/dev.json tells scripts the addresses
    while it runs. PENSTOCK_POSTGRES_DSN and PENSTOCK_REDIS_URL, when set, are used instead of servers of its own.
    """
    console = Console()
    console.print("Penstock: starting the development environment")
    from gateway.dev.run import run_dev  # noqa: PLC0415 - takes a while to import: a first line comes before

    return run_dev(DevOptions(data_dir, port, metrics_port, engines, auth), console, Console(stderr=True))
