"""What every route needs: who calls, a transaction, and the part of a list that is wanted."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Annotated, Any, Generic, Self, TypeAlias, TypeVar
from uuid import UUID

from fastapi import Depends, Query
from pydantic import BaseModel, ConfigDict, Field

from gateway.admin.database import Database, Pool, transaction_in
from gateway.admin.model_names import check_models
from gateway.admin.page import ROWS_MAX, Page
from gateway.authenticate.key import Peppers
from gateway.domain.addresses import TrustedProxies
from gateway.domain.config import GatewayConfig
from gateway.domain.engines import EngineState
from gateway.errors import Unavailable

if TYPE_CHECKING:
    from gateway.admin.sign_in.service import SignIn  # what a command that serves itself does without

TRANSACTIONS_MAX = 3
"""How many connections the control plane takes from the pool at once: the rest is for the data path."""

QUEUE_TIMEOUT_S = 5.0
"""How long a request waits for one of them."""

PoolProvider: TypeAlias = Callable[[], Pool]
ConfigProvider: TypeAlias = Callable[[], GatewayConfig]
EnginesProvider: TypeAlias = Callable[[], Iterable[EngineState]]


class Control:
    """What routes work with: the pool, opened when the server starts, what keys are signed with, and penstock.yaml.

    Without a `config_provider`, names of models are taken as they come. `sign_in` recognises people by tokens of an
    identity provider; `proxies` are trusted to say where a request comes from; `engines_provider` tells how this
    replica sees its engines now, where a gateway runs.
    """

    def __init__(
        self,
        pool_provider: PoolProvider,
        peppers: Peppers,
        config_provider: ConfigProvider | None = None,
        *,
        sign_in: "SignIn | None" = None,
        proxies: TrustedProxies | None = None,
        engines_provider: EnginesProvider | None = None,
        queue_timeout_s: float = QUEUE_TIMEOUT_S,
    ) -> None:
        self._pool_provider = pool_provider
        self._config_provider = config_provider
        self.peppers = peppers
        self.sign_in = sign_in
        self._proxies = proxies or TrustedProxies()
        self._engines_provider = engines_provider
        self._queue_timeout_s = queue_timeout_s
        self._free = asyncio.Semaphore(TRANSACTIONS_MAX)

    def address_of(self, scope: Any) -> str:
        """Return the client's address in an ASGI scope, as far as the proxies before it are trusted."""
        client = scope.get("client")
        return self._proxies.client_of(str(client[0]) if client else "", scope["headers"])

    def config(self) -> GatewayConfig:
        """Return penstock.yaml as it is in force; an empty one where there is none."""
        return GatewayConfig.of((), ()) if self._config_provider is None else self._config_provider()

    def engines(self) -> list[EngineState] | None:
        """Return how this replica sees its engines now, None where no gateway runs."""
        return None if self._engines_provider is None else list(self._engines_provider())

    def check_models(self, names: Iterable[str], *, param: str, unchecked: bool) -> None:
        """Hold names of models against the configuration in force, unless they are to be `unchecked`.

        Raises InvalidRequest.
        """
        if self._config_provider is not None and not unchecked:
            check_models(names, self._config_provider(), param=param, anyway='"unchecked_model": true')

    @asynccontextmanager
    async def transaction(self, *, readonly: bool = False) -> AsyncIterator[Database]:
        """Run the body in one transaction, committed when it ends. Raises StorageUnavailable, Unavailable."""
        try:
            async with asyncio.timeout(self._queue_timeout_s):
                await self._free.acquire()
        except TimeoutError:
            raise Unavailable("too many control-plane requests at once", retry_after_s=self._queue_timeout_s) from None
        try:
            async with transaction_in(self._pool_provider(), readonly=readonly) as db:
                yield db
        finally:
            self._free.release()


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
NameQuery: TypeAlias = Annotated[
    str | None, Query(min_length=1, max_length=200, description="A part of the name, in whatever case.")
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


class Problem(BaseModel):
    """Every answer that is not a success, as RFC 9457 has it: application/problem+json.

    `code` is stable, and the end of `type`; `param` names the field at fault; `instance` is the request's id.
    """

    type: str
    title: str
    status: int
    detail: str
    instance: str
    code: str
    param: str | None
