"""The composition root: the only place where everything meets. Builds the stages, serves, drains, flushes.

On SIGTERM the replica says that it is not ready, refuses new requests while running streams finish, stops listening,
writes what the ledger still holds, and exits 0.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import signal
from typing import TYPE_CHECKING

import asyncpg
import structlog

from gateway import __version__
from gateway.admin.api import build_admin_app
from gateway.admin.local_tenant import local_key
from gateway.admin.routes.context import Control
from gateway.admin.sign_in.service import SignIn
from gateway.admit.admitter import Admitter
from gateway.admit.bucket_store import BucketStore
from gateway.admit.budgets import BudgetBook
from gateway.admit.local import LocalBuckets
from gateway.admit.redis_cluster import scripts_on
from gateway.admit.shared_experience import SharedExperience
from gateway.authenticate.authenticator import Authenticator, CachePolicy
from gateway.authenticate.key import Peppers
from gateway.authenticate.key_store import KeyStore
from gateway.domain.addresses import TrustedProxies
from gateway.duties import leadership
from gateway.edge.descriptors import allow_descriptors
from gateway.edge.identity import token_of
from gateway.edge.loopback import guard_of, require_loopback
from gateway.edge.onboarding import onboarding
from gateway.edge.openapi import describe_data_path
from gateway.edge.probes import Readiness
from gateway.edge.protocol import bounded_protocol
from gateway.edge.server import GatewayServer, server_config
from gateway.edge.stages import EdgeLimits, Stages
from gateway.edge.surface import Surface
from gateway.errors import ConfigError
from gateway.relay.relay import Relay
from gateway.resources import Resources, open_resources
from gateway.route.router import Router
from gateway.settings import ConfigWatcher
from gateway.settle.billing import BillingSeries
from gateway.settle.bookkeeping import Bookkeeping
from gateway.settle.checkpoints import Checkpoints
from gateway.settle.price import PriceTable
from gateway.settle.settler import Settler
from gateway.settle.spending import Spending
from gateway.storage.postgres import AWAY_ERRORS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gateway.authenticate.local_key import LocalKey
    from gateway.domain.config import GatewayConfig
    from gateway.observe.metrics import Metrics
    from gateway.settings import Settings

RESERVATION_MARGIN_S = 300.0

_log = structlog.get_logger("penstock.app")


class Gateway:
    """One replica: its stages, kept in step with penstock.yaml."""

    def __init__(
        self,
        settings: Settings,
        resources: Resources,
        watcher: ConfigWatcher,
        config: GatewayConfig,
        local: LocalKey | None = None,
    ) -> None:
        """`local` is the key that all requests stand for where none is needed."""
        self._settings = settings
        self._resources = resources
        self._watcher = watcher
        metrics = resources.metrics
        self.store = BucketStore(
            scripts_on(resources.redis, timeout_s=settings.redis_timeout_ms / 1000, metrics=metrics),
            reservation_ttl_s=_longest_s(config) + RESERVATION_MARGIN_S,
            metrics=metrics,
        )
        self.books = Bookkeeping(settings, resources.pool, metrics, resources.spool)
        self.authenticator = Authenticator(
            local or KeyStore(resources.pool),
            local.peppers if local else _peppers(settings),
            CachePolicy.of(settings),
            metrics,
            on_away=self.books.writer.doubt,  # who has waited for Postgres once does not wait for it again
            on_revoked_use=resources.notices.revoked_key_used,
        )
        self.prices = PriceTable(resources.pool)
        self.router = Router(metrics)
        self.router.configure(config)
        self.stages = Stages(
            authenticator=self.authenticator,
            admitter=Admitter(
                self.store,
                LocalBuckets(resources.replicas.live),
                BudgetBook(
                    self.store.redis,
                    Spending(resources.pool),
                    lambda: max(self.books.ledger.lag_s(), resources.spool.age_s()),
                    self.store.reservation_ttl_s,
                ),
                self.prices,
                away_policy=settings.redis_away_policy,
                metrics=metrics,
            ),
            router=self.router,
            relay=Relay(),
            ledger=self.books.ledger,
            settler=Settler(self.books.ledger, self.prices, metrics, resources.boot_id),
            metrics=metrics,
            limits=EdgeLimits.of(settings),
            config=config,
            proxies=TrustedProxies(settings.trusted_proxies),
            token_of=local.token_of if local else token_of,
        )
        self._export(metrics)
        self.surface = self._surface()

    async def start(self) -> None:
        """Read prices and start what runs beside the requests."""
        resources = self._resources
        resources.changes.subscribe(self.authenticator)
        resources.changes.subscribe(self.prices)
        self.stages.admitter.on_exceeded = resources.notices.budget_refused
        await self._seed_prices()
        with contextlib.suppress(asyncpg.PostgresError, *AWAY_ERRORS):  # read again in the background
            await self.prices.refresh()
        await self.store.check()
        known = self.stages.admitter.learning.experience
        self.shared = SharedExperience(self.store.redis, lambda: self.stages.config.models, known)
        await self.shared.exchange()
        start = resources.background.start
        start("prices", self.prices.run)
        start("experience", self.shared.run)
        start("buckets", self.store.run)
        start("limits", self.stages.admitter.run)
        start("leadership", leadership(self._settings, resources, self.prices, lambda: self.stages.config).run)
        stages, every_s = self.stages, self._settings.checkpoint_interval_s
        totals = stages.settler.totals
        checkpoints = Checkpoints(
            resources.pool, resources.boot_id, stages.live, stages.ledger, totals, every_s=every_s
        )
        start("checkpoints", checkpoints.run)
        billing = BillingSeries(resources.pool, resources.metrics.registry, every_s=self._settings.billing_interval_s)
        start("billing", billing.run)
        start("configuration", lambda: self._watcher.run(self._configure))
        self.books.start(start)

    async def finish(self) -> None:
        """Settle what is queued and write the ledger out."""
        await self.shared.exchange()  # what was learnt since the last exchange is not lost with this replica
        await self.store.close()
        await self.books.finish()
        await self.router.close()
        await self.authenticator.close()

    def _surface(self) -> Surface:
        settings, stages, pool = self._settings, self.stages, self._resources.pool
        control = Control(
            lambda: pool,
            _peppers(settings),
            lambda: stages.config,
            sign_in=SignIn.of(settings, lambda: stages.config.sign_in, lambda: pool),
            proxies=stages.proxies,
            engines_provider=self.router.states,
        )
        admin = build_admin_app(control, __version__)
        describe_data_path(admin.openapi())  # FastAPI keeps the document that it has made
        pages = onboarding(settings, stages, self.prices)
        readiness = Readiness(lambda: stages.draining, self._parts)
        return Surface(stages, readiness, admin, pages, guard_of(settings))

    def _configure(self, config: GatewayConfig) -> None:
        self.router.configure(config)
        self.stages.config = config
        self._resources.background.start("seed prices", self._seed_prices)
        _log.info("config_changed", models=len(config.models), pools=len(config.pools))

    async def _seed_prices(self) -> None:
        while True:
            try:
                await self.prices.seed(self.stages.config.models)
            except (asyncpg.PostgresError, *AWAY_ERRORS) as error:
                _log.warning("prices_not_seeded", reason=type(error).__name__)
                await asyncio.sleep(1.0)
            else:
                return

    def _export(self, metrics: Metrics) -> None:
        """Let the gauges be read when they are asked for."""
        metrics.in_flight.set_function(lambda: self.stages.in_flight)
        metrics.config_generation.set_function(lambda: self._watcher.generation)
        metrics.config_valid.set_function(lambda: 0 if self._watcher.last_error else 1)

    def _parts(self) -> dict[str, str]:
        return {
            "version": __version__,
            "postgres": "ok" if self._resources.changes.trusted and not self.books.store.away else "away",
            "redis": "ok" if self.store.available else "away",
            **self.books.parts(),
        }


async def serve(settings: Settings) -> None:
    """Serve one replica until SIGTERM or SIGINT.

    Raises:
        ConfigError: settings or penstock.yaml are wrong, or a port is taken.
        StorageUnavailable: Postgres does not answer.
    """
    require_loopback(settings)
    watcher = ConfigWatcher(settings.config, timeouts=settings.timeouts)
    config = watcher.load()
    allow_descriptors(settings.connections_max, settings.requests_in_flight_max)
    async with open_resources(settings) as resources:
        local = await local_key(settings, resources.pool, _peppers(settings))
        gateway = Gateway(settings, resources, watcher, config, local)
        protocol = bounded_protocol(
            header_bytes_max=settings.header_bytes_max,
            header_timeout_s=settings.header_timeout_s,
            body_bytes_max=settings.body_bytes_max,
            body_timeout_s=settings.body_timeout_s,
            connections_max=settings.connections_max,
        )
        server = GatewayServer(
            server_config(
                gateway.surface,
                protocol,
                host=settings.host,
                port=settings.port,
                keep_alive_timeout_s=settings.keep_alive_timeout_s,
                drain_timeout_s=settings.drain_timeout_s,
            ),
            drain_timeout_s=settings.drain_timeout_s,
        )
        await gateway.start()
        tune_collector()
        with _signals(server, gateway.stages):
            try:
                await server.serve()
            except SystemExit:  # uvicorn's way of saying that it could not bind
                raise ConfigError(f"cannot listen on {settings.host}:{settings.port}; is the port taken?") from None
            finally:
                gateway.stages.draining = True
                await server.wait_for_requests()
                await gateway.finish()
    _log.info("stopped")


def tune_collector() -> None:
    """Keep the garbage collector off what start-up made, and let it look less often: requests leave no cycles."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)


@contextlib.contextmanager
def _signals(server: GatewayServer, stages: Stages) -> Iterator[None]:
    loop = asyncio.get_running_loop()

    def drain() -> None:
        if stages.draining:
            server.force_exit = True  # asked twice: now
        else:
            stages.draining = True
            server.drain()
        _log.info("draining", in_flight=stages.in_flight)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, drain)
    try:
        yield
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)


def _peppers(settings: Settings) -> Peppers:
    try:
        return Peppers.parse(settings.key_peppers.get_secret_value())
    except ValueError as error:
        raise ConfigError(f"PENSTOCK_KEY_PEPPERS: {error}") from None


def _longest_s(config: GatewayConfig) -> float:
    return max((pool.timeouts.total_s for pool in config.pools.values()), default=1800.0)
