"""Connections to Postgres: the pool of the data path, and how asyncpg's errors are told from each other."""

from __future__ import annotations

import asyncio
import contextlib
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, TypeAlias

import asyncpg
import structlog

from gateway.errors import StorageUnavailable, reason_of
from gateway.patience import Deadline
from gateway.storage.dsn import asyncpg_dsn, redacted

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

POOL_SIZE_MAX = 8
CONNECT_TIMEOUT_S = 5.0

_log = structlog.get_logger("penstock.storage")

AWAY_ERRORS = (
    OSError,
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    asyncpg.OperatorInterventionError,
    asyncpg.InsufficientResourcesError,
    asyncpg.CannotConnectNowError,
    TimeoutError,
)
"""What asyncpg raises when Postgres is not there (refused, cut, starting, stopping, full): not a wrong query.

InternalClientError is one of them: asyncpg loses its own track of a connection that is cut between two messages.
"""

Pool: TypeAlias = "asyncpg.Pool[asyncpg.Record]"
Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"
PoolProxy: TypeAlias = "asyncpg.pool.PoolConnectionProxy[asyncpg.Record]"


@asynccontextmanager
async def borrowed(pool: Pool, seconds: float) -> AsyncIterator[PoolProxy]:
    """Yield a connection for work that is over within `seconds`, and another `seconds` to get the connection.

    When it is not, or fails, the connection is thrown away instead of given back: asyncpg would first wait for Postgres
    to acknowledge a cancellation, for as long as a frozen or unreachable server takes.

    Raises:
        TimeoutError: the time is over.
    """
    async with Deadline(seconds):
        connection = await pool.acquire()
    try:
        async with Deadline(seconds):
            yield connection
    except BaseException:
        with contextlib.suppress(asyncpg.InterfaceError):  # gone already, and out of the pool with that
            connection.terminate()
        raise
    finally:
        await pool.release(connection)


async def _leave_as_it_is(_connection: Connection) -> None:
    """Replace asyncpg's reset, a query at every return to the pool: nothing here leaves a session changed.

    Work that fails throws its connection away (`borrowed`), so no transaction is ever left open either.
    """


async def open_pool(dsn: str, *, pooled: bool, wait_s: float) -> Pool:
    """Open the data path's pool, trying for `wait_s` seconds while Postgres is away.

    Args:
        dsn: address; a transaction pooler is fine.
        pooled: whether a transaction pooler stands in between, which makes prepared statements impossible.
        wait_s: how long to go on trying.

    Raises:
        StorageUnavailable: Postgres did not answer within `wait_s`.
    """
    deadline_s = asyncio.get_running_loop().time() + wait_s
    told = False
    while True:
        try:
            return await asyncpg.create_pool(
                asyncpg_dsn(dsn),
                min_size=1,
                max_size=POOL_SIZE_MAX,
                timeout=CONNECT_TIMEOUT_S,
                command_timeout=30.0,
                statement_cache_size=0 if pooled else 100,
                max_inactive_connection_lifetime=300.0,
                server_settings={"application_name": "penstock"},
                reset=_leave_as_it_is,
            )
        except AWAY_ERRORS as error:
            reason = reason_of(error)
            if asyncio.get_running_loop().time() >= deadline_s:
                raise StorageUnavailable(f"Postgres at {redacted(dsn)} does not answer: {reason}") from error
            if not told:
                told = True
                _log.warning("postgres_away", address=redacted(dsn), reason=reason, waiting_s=wait_s)
        except asyncpg.PostgresError as error:
            raise StorageUnavailable(f"Postgres at {redacted(dsn)} refuses: {error}") from error
        await asyncio.sleep(0.5)
