"""Makes a function that calls the API into a command: it gets the options that say where, and the API opened there."""

from __future__ import annotations

import inspect
from contextlib import AsyncExitStack
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Concatenate, ParamSpec, TypeVar

import typer

from gateway.cli.options import PostgresDsn
from gateway.errors import ConfigError

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable

    from gateway.cli.api import Api, Client
    from gateway.cli.place import Chosen, Place

P = ParamSpec("P")
R = TypeVar("R")

_OPTIONS: dict[str, Any] = {
    "gateway": Annotated[
        str | None,
        typer.Option("--gateway", metavar="URL", help="Gateway to call: its address, or the host of one logged in to."),
    ],
    "ca_file": Annotated[
        Path | None,
        typer.Option("--ca-file", metavar="FILE", help="Authorities (PEM) to trust instead of the system's."),
    ],
    "insecure_http": Annotated[
        bool, typer.Option("--insecure-http", help="Send the admin key unencrypted, to an http:// address.")
    ],
    "postgres_dsn": PostgresDsn,
}


def on_gateway(function: Callable[Concatenate[Api, P], R]) -> Callable[..., R]:
    """Return a command that calls `function` with the API of the place that its options and the environment name."""
    signature = inspect.signature(function)
    own = [parameter for name, parameter in signature.parameters.items() if name != "api"]
    ours = [
        inspect.Parameter(
            name, inspect.Parameter.KEYWORD_ONLY, default=False if name == "insecure_http" else None, annotation=kind
        )
        for name, kind in _OPTIONS.items()
    ]

    @wraps(function)
    def command(*args: Any, **kwargs: Any) -> R:
        from gateway.cli.place import Chosen  # noqa: PLC0415 - --help and completion need no settings

        chosen = Chosen(**{name: kwargs.pop(name) for name in _OPTIONS})
        with opened(chosen) as api:
            return function(api, *args, **kwargs)

    parameters = [*own, *ours]
    command.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined] # what Typer reads
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return command


def opened(chosen: Chosen) -> Api:
    """Return the API of the place that is meant, to be entered; it is found and connected to at the first call."""
    from gateway.cli.api import Api  # noqa: PLC0415 - --help and completion need no client
    from gateway.cli.place import find_place  # noqa: PLC0415 - as above

    return Api(lambda: find_place(chosen, note=_note), _connected)


def opened_at(place: Place) -> Api:
    """Return the API of a place, to be entered."""
    from gateway.cli.api import Api  # noqa: PLC0415 - as above

    return Api(lambda: place, _connected)


async def _connected(place: Place) -> Client:
    """Return a client that speaks to a place. Raises StorageUnavailable, ConfigError."""
    from gateway import __version__  # noqa: PLC0415 - as above
    from gateway.cli.api import Client, client_of  # noqa: PLC0415 - as above
    from gateway.cli.place import Local  # noqa: PLC0415 - as above

    headers = {"user-agent": f"penstock/{__version__}"}
    async with AsyncExitStack() as stack:
        if isinstance(place, Local):
            from gateway.cli.here import served_here  # noqa: PLC0415 - the application, which a remote call spares

            transport = await stack.enter_async_context(served_here(place))
            made = client_of(transport, "http://localhost", headers)
        else:
            headers["authorization"] = f"Bearer {place.credential}"
            options = {"verify": trusting(place.ca_file)} if place.url.startswith("https:") else {}
            made = client_of(None, place.url, headers, **options)
        return Client(await stack.enter_async_context(made), stack.pop_all())
    raise AssertionError("nothing here is suppressed")


def trusting(ca_file: Path | None) -> ssl.SSLContext:
    """Return what certificates are checked by. Raises ConfigError when the file cannot be read."""
    import ssl  # noqa: PLC0415 - takes a while, and http:// needs none

    try:
        return ssl.create_default_context(cafile=None if ca_file is None else str(ca_file))
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(
            f"--ca-file {ca_file} cannot be read: {error.strerror or 'it holds no certificate'}"
        ) from None


def _note(text: str) -> None:
    typer.echo(f"note: {text}", err=True)
