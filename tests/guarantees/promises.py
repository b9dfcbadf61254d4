"""The promises, one entry each: what is promised, its bound, and the test that measures it."""

from __future__ import annotations

from dataclasses import dataclass

CHAOS = "tests/chaos/test_chaos.py::test_the_books_agree_after_everything_failed"
SOAK = "tests/chaos/test_soak.py::test_nothing_grows_under_steady_load"
KEYS = "tests/integration/test_path_keys.py"
SHARED = "tests/integration/test_shared_limits.py"


@dataclass(frozen=True)
class Promise:
    """One promise. What is measured is in `unit` and must be at most `limit`; `bound` says that to people."""

    id: str
    promise: str
    bound: str
    limit: float
    unit: str
    test: str
    """As pytest names it, without parameters."""
    by_the_clock: bool = False
    """Whether it is read off a clock, and so says as much of how busy the machine is."""


PROMISES: dict[str, Promise] = {
    promise.id: promise
    for promise in (
        Promise(
            "requests-over-limit",
            "requests over the limit, any number of replicas, Redis up",
            "0 beyond capacity + refill",
            0,
            "requests",
            f"{SHARED}::test_replicas_share_a_limit_of_requests",
        ),
        Promise(
            "tokens-over-limit",
            "tokens over the limit, any number of replicas, Redis up",
            "0 on what is reserved",
            0,
            "tokens",
            f"{SHARED}::test_replicas_share_a_limit_of_tokens",
        ),
        Promise(
            "requests-over-limit-chaos",
            "requests over the limit between losses of Redis, while replicas are killed",
            "0 beyond capacity + refill",
            0,
            "requests",
            CHAOS,
        ),
        Promise(
            "redis-lost",
            "what a limit lets through beyond its line when Redis loses its data",
            "at most one extra capacity a loss",
            1,
            "capacities",
            CHAOS,
        ),
        Promise(
            "redis-lost-in-part",
            "what a limit lets through while only some replicas have lost Redis (policy `local`)",
            "at most 2 x",
            2,
            "x",
            f"{SHARED}::test_a_replica_without_redis_lets_through_no_more_than_the_limit_again",
        ),
        Promise(
            "revocation",
            "revocation takes effect on every replica, Postgres up",
            "within 1 s",
            1,
            "s",
            f"{KEYS}::test_a_key_that_stops_counting_is_refused_within_a_second",
            by_the_clock=True,
        ),
        Promise(
            "revocation-away",
            "a key is served without Postgres for at most 15 minutes since it was verified",
            "at most 900 s",
            900,
            "s",
            "tests/unit/authenticate/test_postgres_away.py::"
            "test_a_key_is_served_without_postgres_for_as_long_as_is_promised",
        ),
        Promise(
            "limit-change",
            "a changed limit is in force on every replica",
            "within 1 s",
            1,
            "s",
            f"{KEYS}::test_a_changed_limit_acts_within_a_second",
            by_the_clock=True,
        ),
        Promise(
            "ledger-events",
            "ledger events lost or doubled over kill -9 of replicas, loss of Redis, outage of Postgres (spool kept)",
            "0",
            0,
            "events",
            CHAOS,
        ),
        Promise(
            "ledger-tokens",
            "tokens of the ledger against the engine's own count, normal operation",
            "exact",
            0,
            "tokens",
            "tests/integration/test_replay_ledger.py::test_the_ledger_tells_what_the_replay_was_told",
        ),
        Promise(
            "ledger-tokens-chaos",
            "requests that ended normally amid faults whose tokens differ from the engine's or the client's count",
            "0",
            0,
            "requests",
            CHAOS,
        ),
        Promise(
            "ledger-estimates",
            "a stream whose replica was killed: what was generated and is not billed",
            "one checkpoint: 5 s of generation, taken within a second",
            6,
            "s of generation",
            CHAOS,
        ),
        Promise(
            "hang-up",
            "a client's hang-up stops its engine",
            "within 1 s",
            1,
            "s",
            "tests/integration/test_path_hangup.py::test_a_hang_up_in_a_stream_stops_the_engine_and_is_billed",
            by_the_clock=True,
        ),
        Promise(
            "usage-visible",
            "usage is visible in reports, 99th percentile",
            "within 2 s",
            2,
            "s",
            "tests/integration/test_usage_visible.py::test_usage_is_reported_soon",
            by_the_clock=True,
        ),
        Promise(
            "rolling-update",
            "streams cut by a rolling update",
            "0 (streams up to the grace period)",
            0,
            "streams",
            "tests/process/test_rolling_update.py::test_a_rolling_update_cuts_no_stream",
        ),
        Promise(
            "leases",
            "places that a killed replica held are free again",
            "within 30 s",
            30,
            "s",
            f"{SHARED}::test_the_places_of_a_killed_replica_lapse",
        ),
        Promise("memory", "memory grows under steady load, after warm-up", "at most 5 %", 5, "%", SOAK),
        # Kept connections come and go with what happens to run: a leak would be of the order of the requests served.
        Promise("descriptors", "descriptors grow under steady load, after warm-up", "at most 10", 10, "more", SOAK),
        Promise("tasks", "tasks grow under steady load, after warm-up", "at most 5", 5, "more", SOAK),
        Promise("redis-keys", "keys in Redis grow under steady load, after warm-up", "at most 20", 20, "more", SOAK),
    )
}
