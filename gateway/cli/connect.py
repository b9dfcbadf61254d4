"""Finds the database that a command works on, and runs the work in one transaction.

In this order: `--postgres-dsn`, PENSTOCK_POSTGRES_DSN, a `penstock dev` that runs in the current folder. The
penstock.yaml beside it is that of the `penstock dev` whose database it is, else the one that PENSTOCK_CONFIG names.
"""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol, TypeVar

from gateway.admin.database import transaction_on
from gateway.admin.page import FIRST_PAGE, ROWS_MAX, Page
from gateway.authenticate.key import Peppers
from gateway.dev.files import read_json
from gateway.errors import ConfigError
from gateway.settings import Settings, load_settings

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from uuid import UUID

    from gateway.admin.database import Database

DEV_FILE: Final = Path(".penstock/dev.json")

T = TypeVar("T")


class Listed(Protocol):
    """Anything that lists are made of."""

    @property
    def id(self) -> UUID:
        """What the next page starts after."""


L = TypeVar("L", bound=Listed)


@dataclass(frozen=True, slots=True)
class Control:
    """What a command administers: the address of Postgres, with password, and what keys are signed with.

    `config` is the gateway's penstock.yaml, None where there is none here.
    """

    address: str = field(repr=False)
    peppers: Peppers
    config: Path | None = None

    def run(self, work: Callable[[Database], Awaitable[T]]) -> T:
        """Run `work` in one transaction and return what it returns. Raises GatewayError, ConfigError."""

        async def connected() -> T:
            async with transaction_on(self.address) as db:
                return await work(db)

        return asyncio.run(connected())

    def every(self, fetch: Callable[[Database, Page], Awaitable[list[L]]]) -> list[L]:
        """Return all rows of a list that comes in pages: scripts could not tell that some are missing.

        Raises GatewayError, ConfigError.
        """

        async def pages(db: Database) -> list[L]:
            page = await fetch(db, FIRST_PAGE)
            rows = [*page]
            while len(page) == ROWS_MAX:
                page = await fetch(db, Page(after=page[-1].id))
                rows += page
            return rows

        return self.run(pages)


def control(postgres_dsn: str | None) -> Control:
    """Return what to administer, given the value of `--postgres-dsn`. Raises ConfigError saying what to set."""
    settings = load_settings(postgres_dsn=postgres_dsn)
    dev = running_dev()
    address = settings.require_postgres_dsn() if settings.postgres_dsn else _address_of(dev)
    if isinstance(dev.get("config"), str) and dev.get("postgres_dsn") == address:
        config = Path(str(dev["config"]))
    else:
        config = settings.config
    return Control(address, peppers_of(settings), config if config.exists() else None)


def direct_address(postgres_dsn: str | None) -> str:
    """Return the address past any pooler. A given `--postgres-dsn` is meant to be one. Raises ConfigError."""
    settings = load_settings(postgres_dsn=postgres_dsn)
    if postgres_dsn is not None:
        return settings.require_postgres_dsn()
    if settings.postgres_dsn or settings.postgres_direct_dsn:
        return settings.require_postgres_direct_dsn()
    return _address_of(running_dev())


def peppers_of(settings: Settings) -> Peppers:
    """Return what keys are signed with. Raises ConfigError, never quoting a secret."""
    try:
        return Peppers.parse(settings.key_peppers.get_secret_value())
    except ValueError as error:
        raise ConfigError(f"PENSTOCK_KEY_PEPPERS: {error}") from None


def running_dev() -> dict[str, object]:
    """Return what a `penstock dev` that runs in this folder tells of itself, nothing when none does."""
    try:
        described = read_json(DEV_FILE)
    except OSError:  # somebody else's folder
        return {}
    pid = described.get("pid")
    return described if isinstance(pid, int) and pid > 0 and _is_running(pid) else {}


def _address_of(dev: dict[str, object]) -> str:
    value = dev.get("postgres_dsn")
    if not isinstance(value, str):
        raise ConfigError(
            "no database to work on: set PENSTOCK_POSTGRES_DSN or give --postgres-dsn,"
            f" or call this in a folder in which `penstock dev` is running{_gateway_known()}"
        )
    return value


def _gateway_known() -> str:
    """Return what to say to who has a gateway to call, which cannot do what is asked for."""
    from gateway.cli.profiles import current_profile  # noqa: PLC0415 - of use here alone

    profile = current_profile()
    url = load_settings().url or (None if profile is None else profile.url)
    return f"; this works on the database itself, and {url} is a gateway" if url else ""


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except (OSError, OverflowError):
        return False
    return True
