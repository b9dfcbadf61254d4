"""Results of benchmark runs, made up for tests: round numbers that are easy to follow."""

from __future__ import annotations

from bench.accounting import Memory
from bench.ledger import LedgerCheck, LedgerTotals
from bench.pair import EngineCounters, Latency, LoadResult
from bench.runner import GATEWAY_CORE, OTHER_CORES, Run, ScenarioResult, Start
from bench.scenarios import select
from bench.schedule import DIRECT, GATEWAY, NGINX


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
    found.runs[DIRECT] = [run(load, {"engine": 0.5, "load": 0.1}) for load in direct]
    if gateway:
        cores = {GATEWAY_CORE: share + others, OTHER_CORES: 0.6}
        shares = {"gateway": share, "engine": 0.2, "postgres": 0.3, "load": 0.1, **cores}
        found.runs[GATEWAY] = [run(load, shares, Memory(110.0, 120.0)) for load in gateway]
        found.idle[GATEWAY] = Memory(100.0, 105.0)
    return found


def run(load: LoadResult, shares: dict[str, float], memory: Memory | None = None) -> Run:
    """Return a run in whose single second each group used this share of a core."""
    return Run(load, dict(shares), shares, memory)


def with_nginx(measured: ScenarioResult, load: LoadResult, share: float = 0.5) -> ScenarioResult:
    """Add a run through nginx, which used `share` of the core that is otherwise the gateway's."""
    measured.runs[NGINX] = [run(load, {NGINX: share, GATEWAY_CORE: share, OTHER_CORES: 0.95}, Memory(14.0, 20.0))]
    measured.idle[NGINX] = Memory(12.0, 12.0)
    return measured


def started(*ready_s: float) -> ScenarioResult:
    """Return the result of the start-up scenario with these starts, each of which used its time as CPU."""
    found = ScenarioResult(select(["start-up"])[0])
    found.starts = [Start(seconds, seconds, Memory(100.0, 100.0)) for seconds in ready_s]
    return found


def ledger_check(*, answered: int = 10, closed: int = 10, exact: int = 10, completion_tokens: int = 900) -> LedgerCheck:
    """Return the check of ten answers of 10 + 90 tokens each, exact unless something else is asked for."""
    engine = EngineCounters(requests=10, finished=10, hangups=0, prompt_tokens=100, completion_tokens=900)
    return LedgerCheck(answered, engine, LedgerTotals(10, closed, exact, 100, completion_tokens))
