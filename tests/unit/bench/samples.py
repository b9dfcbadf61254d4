"""Results of benchmark runs, made up for tests: round numbers that are easy to follow."""

from __future__ import annotations

from bench.ledger import LedgerCheck, LedgerTotals
from bench.pair import EngineCounters, Latency, LoadResult
from bench.runner import DIRECT, GATEWAY, GATEWAY_CORE, OTHER_CORES, Run, ScenarioResult
from bench.scenarios import select


def load_result(*, per_s: float = 1000.0, chunks_per_s: float = 0.0, p50_us: float = 500.0) -> LoadResult:
    """Return a result of one measured second in which every latency had this median."""
    latency = Latency(samples=1000, p50=p50_us, p90=p50_us * 2, p99=p50_us * 3, max=p50_us * 4)
    return LoadResult(
        seconds=1.0,
        answered=1200,
        requests=int(per_s),
        requests_per_s=per_s,
        chunks=int(chunks_per_s),
        chunks_per_s=chunks_per_s,
        errors=0,
        reconnects=0,
        unanswered=0,
        cpu_s=0.1,
        first_error=None,
        latency_us=latency,
        first_byte_us=latency,
        first_content_us=latency,
        transit_us=latency,
    )


def result(
    name: str, direct: list[LoadResult], gateway: list[LoadResult], share: float = 1.0, others: float = 0.0
) -> ScenarioResult:
    """Return a result in which the gateway used `share` of its core, other programs `others`, Postgres 30 %."""
    found = ScenarioResult(select([name])[0])
    found.runs[DIRECT] = [Run(load, {"engine": 0.5, "load": 0.1}) for load in direct]
    if gateway:
        cores = {GATEWAY_CORE: share + others, OTHER_CORES: 0.6}
        shares = {"gateway": share, "engine": 0.2, "postgres": 0.3, "load": 0.1, **cores}
        found.runs[GATEWAY] = [Run(load, shares) for load in gateway]
    return found


def ledger_check(*, answered: int = 10, closed: int = 10, exact: int = 10, completion_tokens: int = 900) -> LedgerCheck:
    """Return the check of ten answers of 10 + 90 tokens each, exact unless something else is asked for."""
    engine = EngineCounters(requests=10, finished=10, hangups=0, prompt_tokens=100, completion_tokens=900)
    return LedgerCheck(answered, engine, LedgerTotals(10, closed, exact, 100, completion_tokens))
