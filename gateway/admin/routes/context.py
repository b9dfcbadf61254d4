"""What every route needs: who calls, a transaction, and the part of a list that is wanted."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Annotated, Any, Generic, Self, TypeAlias, TypeVar
from uuid import UUID

from fastapi import Depends, Query, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic import BaseModel, ConfigDict, Field

from gateway.admin.credentials import verify_admin_credential
from gateway.admin.database import Database, Pool, transaction_in
from gateway.admin.model_names import check_models
from gateway.admin.page import ROWS_MAX, Page
from gateway.admin.scope import Scope
from gateway.authenticate.key import Peppers
from gateway.domain.config import GatewayConfig
from gateway.errors import InvalidKey, Unavailable

TRANSACTIONS_MAX = 3
"""How many connections the control plane takes from the pool at once: the rest is for the data path."""

QUEUE_TIMEOUT_S = 5.0
"""How long a request waits for one of them."""

PoolProvider: TypeAlias = Callable[[], Pool]
ConfigProvider: TypeAlias = Callable[[], GatewayConfig]


class Control:
    """What routes work with: the pool, opened when the server starts, what keys are signed with, and penstock.yaml.

    Without a `config_provider`, names of models are taken as they come.
    """

    def __init__(
        self,
        pool_provider: PoolProvider,
        peppers: Peppers,
        config_provider: ConfigProvider | None = None,
        *,
        queue_timeout_s: float = QUEUE_TIMEOUT_S,
    ) -> None:
        self._pool_provider = pool_provider
        self._config_provider = config_provider
        self.peppers = peppers
        self._queue_timeout_s = queue_timeout_s
        self._free = asyncio.Semaphore(TRANSACTIONS_MAX)

    def check_models(self, names: Iterable[str], *, param: str, unchecked: bool) -> None:
        """Hold names of models against the configuration in force, unless they are to be `unchecked`.

        Raises InvalidRequest.
        """
        if self._config_provider is not None and not unchecked:
            check_models(names, self._config_provider(), param=param, anyway='"unchecked_model": true')

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Database]:
        """Run the body in one transaction, committed when it ends. Raises StorageUnavailable, Unavailable."""
        try:
            async with asyncio.timeout(self._queue_timeout_s):
                await self._free.acquire()
        except TimeoutError:
            raise Unavailable("too many control-plane requests at once", retry_after_s=self._queue_timeout_s) from None
        try:
            async with transaction_in(self._pool_provider()) as db:
                yield db
        finally:
            self._free.release()


def _control(request: Request) -> Control:
    control: Control = request.app.state.control
    return control


ControlDep: TypeAlias = Annotated[Control, Depends(_control)]
_bearer = HTTPBearer(auto_error=False, description="An admin key; make one with `penstock admin-key create`.")


async def _authorize(
    control: ControlDep, bearer: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]
) -> Scope:
    """Return how far the caller can see. Raises InvalidKey."""
    if bearer is None:
        raise InvalidKey("no admin key; send it as 'Authorization: Bearer adm-pst-…'")
    async with control.transaction() as db:
        return await verify_admin_credential(db, control.peppers, bearer.credentials)


ScopeDep: TypeAlias = Annotated[Scope, Depends(_authorize)]


def _page(
    limit: Annotated[int, Query(ge=1, le=ROWS_MAX, description="How many rows at most.")] = 100,
    after: Annotated[UUID | None, Query(description="The `next_after` of the page before.")] = None,
) -> Page:
    return Page(limit, after)


PageDep: TypeAlias = Annotated[Page, Depends(_page)]

Reference: TypeAlias = Annotated[str, Field(min_length=1, max_length=200, description="An id or a name.")]
OrganizationQuery: TypeAlias = Annotated[
    str | None, Query(max_length=200, description="Id or name of one organization. Default: all within reach.")
]


class Wanted(BaseModel):
    """Base of request bodies: unknown fields and wrong types are refused."""

    model_config = ConfigDict(extra="forbid", strict=True, hide_input_in_errors=True)


Row = TypeVar("Row")


class Listing(BaseModel, Generic[Row]):
    """One page of a list, by id. `next_after` is null on the last page."""

    data: list[Row]
    next_after: UUID | None

    @classmethod
    def of(cls, rows: list[Any], page: Page) -> Self:
        """Return a page of rows that have an id."""
        return cls(data=rows, next_after=rows[-1].id if len(rows) == page.limit else None)


class ErrorDetail(BaseModel):
    """What went wrong: `code` is stable, `param` names the field at fault."""

    message: str
    type: str
    code: str
    param: str | None


class ErrorAnswer(BaseModel):
    """Every answer that is not a success."""

    error: ErrorDetail
