"""Signing in, as the routes use it: a token becomes a session, or is shown with every request by automation."""

from __future__ import annotations

import asyncio
import datetime as dt
import time
from collections import OrderedDict
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final, Self

from gateway.admin.database import transaction_in
from gateway.admin.sign_in.mapping import landing
from gateway.admin.sign_in.pass_through import OidcClient, PassThrough
from gateway.admin.sign_in.people import From, bring_in_step, person_as_caller, take_away
from gateway.admin.sign_in.provider import Provider
from gateway.admin.sign_in.refusals import NoGroup
from gateway.admin.sign_in.sessions import begin_session
from gateway.admin.sign_in.tokens import Expected, Identity, verified, verified_bearer
from gateway.authenticate.key import fingerprint
from gateway.errors import ConfigError, Unavailable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from contextlib import AbstractAsyncContextManager

    from gateway.admin.caller import Caller
    from gateway.admin.database import Database, Pool
    from gateway.admin.sign_in.people import Person
    from gateway.admin.sign_in.sessions import Session
    from gateway.authenticate.key import Peppers
    from gateway.domain.sign_in import SignInConfig
    from gateway.settings import Settings

IN_STEP_S: Final = 60.0
"""How long a token that is shown with every request counts as brought in step."""

TOKENS_MAX: Final = 1_000
"""Of how many tokens that is remembered."""

IN_STEP_TIMEOUT_S: Final = 5.0
"""How long that may take, waiting for one's turn included."""

IN_STEP_AT_ONCE_MAX: Final = 1
"""How many connections of the pool bring people in step for requests that show tokens."""


class SignIn:
    """One identity provider and the gateway's own people. See `gateway.admin.sign_in` for its parts."""

    def __init__(
        self,
        provider: Provider,
        client: OidcClient,
        expected: Expected,
        session: dt.timedelta,
        *,
        config_provider: Callable[[], SignInConfig],
        pool_provider: Callable[[], Pool],
    ) -> None:
        self.provider = provider
        self.client = client
        self.pass_through = None if client.secret is None else PassThrough(provider, client)
        self._expected = expected
        self._session = session
        self._config_provider = config_provider
        self._pool_provider = pool_provider
        self._in_step: OrderedDict[bytes, float] = OrderedDict()
        self._free = asyncio.Semaphore(IN_STEP_AT_ONCE_MAX)

    @classmethod
    def of(
        cls, settings: Settings, config_provider: Callable[[], SignInConfig], pool_provider: Callable[[], Pool]
    ) -> Self | None:
        """Return what the settings say, None where nobody signs in. Raises ConfigError."""
        if settings.oidc_issuer is None:
            return None
        if settings.oidc_client_id is None:
            raise ConfigError("PENSTOCK_OIDC_CLIENT_ID is not set: PENSTOCK_OIDC_ISSUER needs what it calls Penstock")
        return cls(
            Provider(settings.oidc_issuer),
            OidcClient(settings.oidc_client_id, settings.oidc_scopes, settings.oidc_client_secret),
            Expected(settings.oidc_client_id, settings.oidc_groups_claim, settings.oidc_audience),
            dt.timedelta(seconds=settings.oidc_session_s),
            config_provider=config_provider,
            pool_provider=pool_provider,
        )

    async def exchange(
        self,
        transaction: Callable[[], AbstractAsyncContextManager[Database]],
        peppers: Peppers,
        token: str,
        nonce: str | None,
        origin: From,
    ) -> Session:
        """Return a session for whom an ID token proves, brought in step with its groups.

        Raises InvalidToken, ProviderUnavailable, NotAdmitted, StorageUnavailable.
        """
        identity = await verified(self.provider, token, self._expected, nonce=nonce)
        async with self._person(transaction, identity, origin) as (db, person):
            return await begin_session(db, peppers, person, self._session)

    async def verify(self, token: str) -> Identity:
        """Return the identity that a token proves which is shown instead of an admin key.

        Every minute the person is brought in step with what the token says, in a transaction of its own.

        Raises InvalidToken, ProviderUnavailable, NotAdmitted, StorageUnavailable.
        """
        identity = await verified_bearer(self.provider, token, self._expected)
        mark, now_s = fingerprint(token), time.monotonic()
        if self._in_step.get(mark, now_s) <= now_s:
            try:
                async with asyncio.timeout(IN_STEP_TIMEOUT_S), self._free, self._person(self._own, identity, From()):
                    pass
            except TimeoutError:
                raise Unavailable("too many people sign in at once", retry_after_s=IN_STEP_TIMEOUT_S) from None
            self._in_step[mark] = now_s + IN_STEP_S
            self._in_step.move_to_end(mark)
            while len(self._in_step) > TOKENS_MAX:
                self._in_step.popitem(last=False)
        return identity

    def _own(self) -> AbstractAsyncContextManager[Database]:
        return transaction_in(self._pool_provider())

    async def caller(self, db: Database, identity: Identity) -> Caller:
        """Return who that is here. Raises InvalidKey for somebody unknown or deleted."""
        return await person_as_caller(db, identity)

    @asynccontextmanager
    async def _person(
        self, transaction: Callable[[], AbstractAsyncContextManager[Database]], identity: Identity, origin: From
    ) -> AsyncIterator[tuple[Database, Person]]:
        """Run the body in the transaction in which the person was brought in step."""
        try:
            place = landing(self._config_provider(), identity)
        except NoGroup:
            async with transaction() as db:
                await take_away(db, identity, origin)
            raise
        async with transaction() as db:
            yield db, await bring_in_step(db, identity, place, origin)
