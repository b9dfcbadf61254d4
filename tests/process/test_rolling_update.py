"""A rolling update: each replica in turn gets SIGTERM and is replaced, under streams, and none of them is cut."""

from __future__ import annotations

import threading
from functools import partial
from typing import TYPE_CHECKING

from tests.support.chat import chat
from tests.support.engine import EngineProcess
from tests.support.gateway import GatewayProcess, write_config
from tests.support.guarantees import measured
from tests.support.http import DONE
from tests.support.ledger import all_closed
from tests.support.tenants import make_tenant
from tests.support.waiting import wait_for

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.tenants import Tenant

CHAT = "/v1/chat/completions"
REPLICAS = 2
CLIENTS = 9
SLOW = {"tokens_per_second": 30, "output_tokens": 60}
ENDS_S_MAX = 30.0


class Streams(threading.Thread):
    """One client that streams without a pause, always from a replica that says it is ready."""

    def __init__(
        self, tenant: Tenant, replicas: list[GatewayProcess], ready: list[bool], ending: threading.Event
    ) -> None:
        super().__init__()
        self.whole = self.cut = 0
        self._tenant = tenant
        self._replicas = replicas
        self._ready = ready
        self._ending = ending

    def run(self) -> None:
        """Stream until told to end."""
        while not self._ending.is_set():
            for number, replica in enumerate(self._replicas):
                if self._ready[number]:
                    self._stream(replica)

    def _stream(self, replica: GatewayProcess) -> None:
        try:
            stream = replica.http(self._tenant.key).stream(CHAT, chat(stream=True, sim=SLOW))
        except OSError:
            return  # it had just stopped listening: nothing had begun
        with stream:
            if stream.status != 200:
                return
            whole = DONE in list(stream.data()) and not stream.cut
            self.whole += whole
            self.cut += not whole


def streams_on(replica: GatewayProcess) -> bool:
    """Whether a replica has requests in flight."""
    return replica.metrics()["penstock_requests_in_flight"] > 0


def test_a_rolling_update_cuts_no_stream(postgres_dsn: str, redis_url: str, tmp_path: Path) -> None:
    tenant = make_tenant(postgres_dsn)
    ending = threading.Event()
    with EngineProcess("sim") as engine:
        config = write_config(tmp_path / "penstock.yaml", [engine.url])
        replicas = [GatewayProcess(config, postgres_dsn, redis_url) for _ in range(REPLICAS)]
        ready = [False] * REPLICAS
        clients = [Streams(tenant, replicas, ready, ending) for _ in range(CLIENTS)]
        try:
            for number, replica in enumerate(replicas):
                replica.start()
                ready[number] = True
            for client in clients:
                client.start()
            for number, replica in enumerate(replicas):
                wait_for(partial(streams_on, replica), "it streams")
                ready[number] = False  # as a load balancer does on SIGTERM, if a little early
                assert replica.terminate() == 0
                replica.start()
                ready[number] = True
            wait_for(lambda: all(client.whole for client in clients), "every client had a stream", ENDS_S_MAX)
        finally:
            ending.set()
            for client in clients:
                client.join()
            codes = [replica.terminate() for replica in replicas]
    assert codes == [0] * REPLICAS
    whole, cut = (sum(getattr(client, name) for client in clients) for name in ("whole", "cut"))
    measured("rolling-update", cut, f"{REPLICAS} replicas in turn, {whole} streams of 2 s from {CLIENTS} clients")
    rows = all_closed(postgres_dsn, tenant, whole)
    assert {(row["status"], row["coverage"]) for row in rows} == {("ok", "exact")}
