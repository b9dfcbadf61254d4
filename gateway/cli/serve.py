"""`penstock serve`: one replica of the gateway, in the foreground, until it is told to stop."""

import asyncio
from pathlib import Path
from typing import Annotated

import typer
import uvloop

from gateway.app import serve as serve_gateway
from gateway.cli.options import Auth
from gateway.errors import ConfigError
from gateway.observe.logs import configure_logs
from gateway.settings import load_settings


def serve(
    config: Annotated[Path | None, typer.Option(help="Path of penstock.yaml.", show_default="penstock.yaml")] = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on.", show_default="127.0.0.1")] = None,
    port: Annotated[int | None, typer.Option(min=0, max=65_535, help="Port to listen on.", show_default="8080")] = None,
    metrics_host: Annotated[str | None, typer.Option(help="Address of the metrics.", show_default="127.0.0.1")] = None,
    metrics_port: Annotated[
        int | None, typer.Option(min=0, max=65_535, help="Port of the metrics.", show_default="9464")
    ] = None,
    auth: Auth = None,
    auth_none_anywhere: Annotated[
        bool | None,
        typer.Option(
            "--auth-none-anywhere",
            help="Allow `--auth none` where others reach the port: whoever does spends the organization local's money.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Serve one replica of the gateway.

    Postgres and Redis come from PENSTOCK_POSTGRES_DSN and PENSTOCK_REDIS_URL; every other setting may come from the
    environment or from `settings:` in penstock.yaml, too. SIGTERM lets running streams finish.
    """
    settings = load_settings(
        config=config,
        host=host,
        port=port,
        metrics_host=metrics_host,
        metrics_port=metrics_port,
        auth=auth,
        auth_none_anywhere=auth_none_anywhere,
    )
    if not settings.config.exists():
        raise ConfigError(f"there is no file {settings.config}: say with --config where penstock.yaml is")
    configure_logs(settings.log_level, settings.log_format)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve_gateway(settings))
