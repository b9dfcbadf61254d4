"""Where the code may suspend and no request is ever met there, each with the reason."""

from __future__ import annotations

PACKAGES = frozenset({"admit", "edge", "patience", "providers", "relay", "route", "settle", "storage"})
ADMISSION = "admitter.admit("

BEYOND = {
    "admit/admitter.py Admitter._insist": "of budgets that are begun, which tests of theirs cancel",
    "admit/admitter.py Admitter.run": "runs beside the requests",
    "admit/budget_counters.py": "is asked by what runs beside the requests",
    "admit/budgets.py": "runs beside the requests, or has tests of its own",
    "admit/leases.py": "runs beside the requests",
    "admit/shared_experience.py": "runs beside the requests",
    "settle/billing.py": "runs beside the requests",
    "settle/bookkeeping.py": "at the replica's end",
    "settle/checkpoints.py": "runs beside the requests",
    "settle/ledger_store.py": "runs beside the requests",
    "settle/ledger_writer.py": "runs beside the requests",
    "settle/reaper.py": "runs beside the requests",
    "settle/reconciler.py": "runs beside the requests",
    "settle/spool.py": "runs beside the requests",
    "settle/spool_drain.py": "runs beside the requests",
    "settle/spending.py": "is asked beside the requests",
    "settle/unclosed.py": "runs beside the requests",
    "settle/baselines.py": "runs beside the requests",
    "settle/verify_engines.py": "runs beside the requests",
    "storage/leader.py": "runs beside the requests",
    "storage/redis.py": "at the replica's end",
    "admit/bucket_store.py BucketStore.run": "runs beside the requests",
    "admit/bucket_store.py BucketStore.check": "at the replica's start",
    "admit/bucket_store.py BucketStore.close": "at the replica's end",
    "admit/redis_cluster.py": "has tests of its own",
    "admit/redis_single.py": "runs beside the requests",
    "admit/redis_node.py": "runs beside the requests",
    "admit/redis_batch.py RedisBatch.close": "at the replica's end",
    "providers/litellm_connection.py": "has tests of its own",
    "route/health.py": "runs beside the requests",
    "route/router.py Router.close": "at the replica's end",
    "settle/price.py PriceTable.run": "runs beside the requests",
    "storage/changes.py ChangeListener.run": "runs beside the requests",
    "storage/replicas.py Replicas.leave": "at the replica's end",
    "storage/replicas.py Replicas.run": "runs beside the requests",
}
"""Functions that are named alike, or reached through one that is, and no part of a request."""

NEVER_SUSPENDED = {
    "admit/admitter.py Admitter._claim: await self._insist(limiter, claim, answer)": "tests of budgets cancel it",
    "admit/admitter.py Admitter._take: await self._claim(self._fallback, claim, wide)": "Redis answers",
    "admit/redis_batch.py RedisBatch._connect: async with Deadline(max(CONNECT_S_MAX, self._timeout_s))": "a timer",
    "edge/completions.py Completions._report: async with asyncio.timeout(REPORT_S_MAX)": "sets a timer",
    "edge/sink.py AsgiSink.fail: await self.stop_keep_alive()": "they were stopped when the relay ended",
    "patience.py Deadline.__aenter__: await self._timeout.__aenter__()": "sets a timer",
    "patience.py Deadline.__aexit__: await self._timeout.__aexit__(kind, error, traceback)": "ends a timer",
    "providers/http_client.py HttpUpstream._connect: async with asyncio.timeout(self._connect_s)": "sets a timer",
    "relay/relay.py Relay.run: async for attempt in attempts": "an engine is chosen without waiting",
    "relay/relay.py _stream: await sink.write(events + pump.cut_short())": "nothing here has a budget",
    "relay/relay.py _read_all: await response.read() (2)": "the response is complete: its end is there",
    "storage/redis_link.py open_link: await connection.disconnect(nowait=True)": "it says so",
}
