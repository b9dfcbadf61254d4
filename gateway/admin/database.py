"""Connections for the control plane, and the one place where asyncpg's errors become GatewayErrors for it.

Every operation is one transaction, which also keeps it correct behind a transaction pooler. Nothing here knows a
table.
"""

from __future__ import annotations

import asyncio
import os
import ssl
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, TypeAlias

import asyncpg

from gateway.errors import ConfigError, Conflict, InvalidRequest, StorageUnavailable
from gateway.storage.dsn import asyncpg_dsn, redacted
from gateway.storage.postgres import AWAY_ERRORS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

Database: TypeAlias = "asyncpg.Connection[asyncpg.Record] | asyncpg.pool.PoolConnectionProxy[asyncpg.Record]"
"""A connection inside a transaction: what service functions take."""

Pool: TypeAlias = "asyncpg.Pool[asyncpg.Record]"

CONNECT_TIMEOUT_S = 4.0
"""How long a person waits to be told that Postgres is away, and a request for a free connection."""

STATEMENT_TIMEOUT_S = 60.0
"""How long one statement may run; usage reports over long times are the longest."""

RETRY_AFTER_S = 1.0
"""When who was told to try again may do so."""

_AWAY = (*AWAY_ERRORS, asyncpg.ReadOnlySQLTransactionError)
_BUSY = (asyncpg.LockNotAvailableError, asyncpg.DeadlockDetectedError, asyncpg.SerializationError)
_NOT_MIGRATED = (
    asyncpg.UndefinedTableError,
    asyncpg.UndefinedColumnError,
    asyncpg.UndefinedFunctionError,
    asyncpg.InvalidSchemaNameError,
)
_REFUSED = (
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.InvalidPasswordError,
    asyncpg.InvalidCatalogNameError,
    asyncpg.InsufficientPrivilegeError,
)
_NO_TEXT = (asyncpg.CharacterNotInRepertoireError, asyncpg.UntranslatableCharacterError)
_CHANGED = (asyncpg.ForeignKeyViolationError, asyncpg.UniqueViolationError)


@asynccontextmanager
async def transaction_on(dsn: str) -> AsyncIterator[Database]:
    """Connect to `dsn`, run the body in one transaction, and hang up.

    Raises:
        StorageUnavailable: Postgres is away (told within `CONNECT_TIMEOUT_S` and a little), refuses the account, or
            was never migrated.
        ConfigError: the address cannot be read. Neither message holds a password.
    """
    async with session_on(dsn) as connection, connection.transaction():
        yield connection


@asynccontextmanager
async def session_on(dsn: str) -> AsyncIterator[Database]:
    """Connect to `dsn` for a body that makes transactions of its own, and hang up. Raises as `transaction_on` does."""
    connection = await _connect(dsn)
    try:
        async with translated():
            yield connection
    finally:
        # `close` waits for the server; a command that is done has nothing to wait for.
        connection.terminate()


@asynccontextmanager
async def transaction_in(pool: Pool, *, readonly: bool = False) -> AsyncIterator[Database]:
    """Borrow a connection and run the body in one transaction. Raises StorageUnavailable as `transaction_on` does."""
    async with (
        translated(),
        pool.acquire(timeout=CONNECT_TIMEOUT_S) as connection,
        connection.transaction(readonly=readonly),
    ):
        yield connection


@asynccontextmanager
async def translated() -> AsyncIterator[None]:
    """Turn what asyncpg raises in the body into GatewayErrors; what is a fault of ours passes as it is."""
    try:
        yield
    except _NOT_MIGRATED as error:
        raise StorageUnavailable("the database has no tables of this release; run: penstock migrate") from error
    except _REFUSED as error:
        raise StorageUnavailable(f"Postgres refuses: {_one_line(str(error))}") from error
    except _NO_TEXT as error:
        raise InvalidRequest("a value holds a character that no text in the database has, such as NUL") from error
    except _CHANGED as error:
        raise Conflict("something that this refers to was changed meanwhile; try again") from error
    except _BUSY as error:
        message = "others change the same things at this moment; try again"
        raise StorageUnavailable(message, retry_after_s=RETRY_AFTER_S) from error
    except _AWAY as error:
        message = "Postgres does not answer; try again when it is back"
        raise StorageUnavailable(message, retry_after_s=RETRY_AFTER_S) from error


@asynccontextmanager
async def pool_on(dsn: str) -> AsyncIterator[Pool]:
    """Yield a pool of one connection to `dsn`, which is open, and hang up. Raises as `transaction_on` does."""
    async with _connecting(dsn):
        pool = await asyncpg.create_pool(
            asyncpg_dsn(dsn), min_size=1, max_size=1, command_timeout=STATEMENT_TIMEOUT_S, statement_cache_size=0
        )
    try:
        yield pool
    finally:
        pool.terminate()


async def _connect(dsn: str) -> asyncpg.Connection[asyncpg.Record]:
    async with _connecting(dsn):
        return await asyncpg.connect(asyncpg_dsn(dsn), command_timeout=STATEMENT_TIMEOUT_S, statement_cache_size=0)


@asynccontextmanager
async def _connecting(dsn: str) -> AsyncIterator[None]:
    """Bound the time that the body may take to connect, and tell in words why it could not."""
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            yield
    except ValueError:  # asyncpg's ClientConfigurationError is one; both may quote the address
        raise ConfigError("the address of Postgres cannot be read: postgresql://USER:PASSWORD@HOST/DATABASE") from None
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as error:
        raise StorageUnavailable(f"cannot reach Postgres at {redacted(dsn)}: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    """Return why there is no connection, and what to look at first."""
    if isinstance(error, _REFUSED):
        return f"{_one_line(str(error))}; check user, password and database in its address"
    if isinstance(error, TimeoutError):
        return f"no answer within {CONNECT_TIMEOUT_S:.0f} s; check its address, and that it runs there"
    if isinstance(error, OSError) and not isinstance(error, ssl.SSLError) and error.errno:
        # Numbers above zero are the system's, below it they are of the resolver, which says in words what they mean.
        words = os.strerror(error.errno) if error.errno > 0 else error.strerror
        return f"{words}; check its address, and that it runs there"
    return _one_line(str(error))


def _one_line(text: str) -> str:
    return " ".join(text.split())[:300]
