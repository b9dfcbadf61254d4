"""The control-plane API inside this process, on a database: what a command calls where no gateway is named.

The same routes as a gateway has, so that there is one service layer, one audit log and one set of errors; the
caller is whoever runs the command, with the reach of the platform.
"""

from __future__ import annotations

import os
import socket
import sys
from contextlib import asynccontextmanager
from functools import cache
from typing import TYPE_CHECKING, Any

import httpx2
import structlog

from gateway import __version__
from gateway.admin.caller import Caller
from gateway.admin.database import pool_on
from gateway.admin.parts import Parts
from gateway.admin.routes.call import CALLER
from gateway.admin.routes.context import Control
from gateway.admin.scope import PLATFORM
from gateway.cli.connect import peppers_of
from gateway.errors import InternalError
from gateway.settings import load_config

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from gateway.cli.place import Local
    from gateway.domain.config import GatewayConfig

USER_ID_UNKNOWN = "unknown"


@asynccontextmanager
async def served_here(local: Local) -> AsyncIterator[httpx2.AsyncBaseTransport]:
    """Yield what requests are sent through. Raises StorageUnavailable, ConfigError."""
    faults = _Faults()
    structlog.configure(processors=[faults], logger_factory=structlog.ReturnLoggerFactory())
    async with pool_on(local.address) as pool:
        config_provider = None if local.config is None else cache(lambda: _config(local))
        control = Control(lambda: pool, peppers_of(local.settings), config_provider)
        yield _InProcess(Parts(control, __version__), faults)


class _Faults:
    """Keeps what the application would log: a command has no log, and tells of a fault itself."""

    def __init__(self) -> None:
        self.last: BaseException | None = None

    def __call__(self, _logger: object, _method: str, _event: object) -> str:
        self.last = sys.exc_info()[1] or self.last
        return ""


class _InProcess(httpx2.AsyncBaseTransport):
    def __init__(self, app: Any, faults: _Faults) -> None:
        self._faults = faults
        caller = local_caller()

        async def trusted(scope: Any, receive: Any, send: Any) -> None:
            await app({**scope, CALLER: caller, "client": None}, receive, send)

        self._transport = httpx2.ASGITransport(trusted)

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        response = await self._transport.handle_async_request(request)
        if response.status_code == InternalError.status and self._faults.last is not None:
            raise self._faults.last
        return response


def local_caller() -> Caller:
    """Return who runs this: the account at this machine, which is what the audit log can tell."""
    try:
        import pwd  # noqa: PLC0415 - not on Windows

        name = pwd.getpwuid(os.getuid()).pw_name
    except (ImportError, KeyError):
        name = USER_ID_UNKNOWN
    return Caller("local", f"{name}@{socket.gethostname()}", name, PLATFORM)


def _config(local: Local) -> GatewayConfig:
    assert local.config is not None, "asked only where there is one"
    return load_config(local.config, with_credentials=False)
