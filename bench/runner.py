"""Runs scenarios: the same load direct to an engine, and through the gateway (or nginx) on its own core, in turns.

Turns rather than blocks, so that what disturbs the machine for a while disturbs both sides alike.
"""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from bench.ledger import LedgerCheck, read_totals
from bench.nginx import running_nginx
from bench.pair import LoadResult, LoadTiming, run_load, running_engine
from bench.payloads import write_request
from bench.processes import CpuSample, resident_mb, sample_cpu
from bench.servers import MODEL, UPSTREAM_MODEL, limiter_decisions, running_gateway

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from bench.pair import Engine
    from bench.pinning import Cores
    from bench.scenarios import Scenario
    from bench.servers import Stack
    from bench.toolchain import Tools

DIRECT, GATEWAY, NGINX = "direct", "gateway", "nginx"
GATEWAY_CORE, OTHER_CORES = "gateway's core", "other cores"
GRANTED = "granted"  # the limiter's word for a request that Redis has let through
PLAIN_KEY = "sk-none"
SETTLE_S = 0.5  # all streams run for a while before measuring begins


@dataclass(frozen=True, slots=True)
class Plan:
    """How often and how long each scenario runs, and whether nginx is measured too."""

    runs: int
    direct: LoadTiming
    through: LoadTiming
    nginx: bool = False


@dataclass(frozen=True, slots=True)
class Run:
    """One run of the load client, and the share of a core that each group of processes used in its window.

    `shares` also says how busy the gateway's core and the others (summed) were, for whatever program.
    """

    load: LoadResult
    shares: Mapping[str, float]


@dataclass(slots=True)
class ScenarioResult:
    """All runs of one scenario by what stood in front of the engine, and what was seen of the gateway."""

    scenario: Scenario
    runs: dict[str, list[Run]] = field(default_factory=dict)
    ready_s: float | None = None
    resident_mb: float | None = None
    ledger: LedgerCheck | None = None
    decisions: dict[str, int] = field(default_factory=dict)

    @property
    def limited_by_redis(self) -> bool:
        """Whether Redis granted every answered request: a gateway that fell back to local limits does less work."""
        return self.ledger is None or self.decisions == {GRANTED: self.ledger.answered}


@dataclass(frozen=True, slots=True)
class Target:
    """Where a load goes: a port, the key to send, and the process ids whose CPU time is counted, by group."""

    name: str
    port: int
    key: str
    pids: Mapping[str, Sequence[int]]


class Runner:
    """Measures scenarios. Without a stack there is no gateway: the engine and the load client are measured alone."""

    def __init__(self, tools: Tools, cores: Cores, plan: Plan, directory: Path, stack: Stack | None) -> None:
        self._tools = tools
        self._cores = cores
        self._plan = plan
        self._directory = directory
        self._stack = stack

    def measure(self, scenario: Scenario, progress: Callable[[str], None]) -> ScenarioResult:
        """Run one scenario as often as planned; `progress` is told what runs. Raises BenchError when a run fails."""
        result = ScenarioResult(scenario)
        before = read_totals(self._stack.postgres_dsn) if self._stack else None
        with ExitStack() as opened:
            targets = [opened.enter_context(self._direct(scenario))]
            if self._plan.nginx:
                targets.append(opened.enter_context(self._nginx(scenario)))
            if self._stack:
                engine = opened.enter_context(self._engine(scenario, GATEWAY))
                with self._gateway(self._stack, engine, result) as gateway:
                    self._take_turns(scenario, [*targets, gateway], result, progress)
                counters = engine.stop()
            else:
                self._take_turns(scenario, targets, result, progress)
        if self._stack and before:
            # After the gateway has ended: by then everything it knows must be in the ledger.
            answered = sum(run.load.answered for run in result.runs[GATEWAY])
            totals = read_totals(self._stack.postgres_dsn).since(before)
            result.ledger = LedgerCheck(answered, counters, totals)
        return result

    def _take_turns(
        self, scenario: Scenario, targets: Sequence[Target], result: ScenarioResult, progress: Callable[[str], None]
    ) -> None:
        for number in range(self._plan.runs):
            for target in targets:
                progress(f"{scenario.name}: {target.name}, run {number + 1} of {self._plan.runs}")
                result.runs.setdefault(target.name, []).append(self._run(scenario, target))

    def _run(self, scenario: Scenario, target: Target) -> Run:
        request = write_request(
            self._directory / f"{scenario.name}-{target.name}.http",
            MODEL,
            target.key,
            scenario.body_bytes,
            stream=scenario.load.stream,
        )
        samples: dict[str, CpuSample] = {}
        cores = {GATEWAY_CORE: self._cores.gateway, OTHER_CORES: self._cores.others}

        def on_mark(mark: str) -> None:
            samples[mark] = sample_cpu(target.pids, cores)

        timing = self._plan.direct if target.name == DIRECT else self._plan.through
        timing = replace(timing, warmup_s=max(timing.warmup_s, scenario.load.ramp_s + SETTLE_S))
        load = run_load(self._tools, target.port, request, scenario.load, timing, on_mark)
        shares = samples["begin"].shares_until(samples["end"])
        return Run(load, {**shares, "load": load.cpu_s / load.seconds})

    @contextmanager
    def _engine(self, scenario: Scenario, name: str) -> Iterator[Engine]:
        log = self._directory / f"engine-{name}.log"
        with running_engine(self._tools, scenario.engine, log, UPSTREAM_MODEL) as engine:
            yield engine

    @contextmanager
    def _direct(self, scenario: Scenario) -> Iterator[Target]:
        with self._engine(scenario, DIRECT) as engine:
            yield Target(DIRECT, engine.port, PLAIN_KEY, {"engine": [engine.process.pid]})

    @contextmanager
    def _nginx(self, scenario: Scenario) -> Iterator[Target]:
        with (
            self._engine(scenario, NGINX) as engine,
            running_nginx(engine.port, self._cores.gateway, self._directory / NGINX) as nginx,
        ):
            pids = {NGINX: [nginx.process.pid], "engine": [engine.process.pid]}
            yield Target(NGINX, nginx.port, PLAIN_KEY, pids)

    @contextmanager
    def _gateway(self, stack: Stack, engine: Engine, result: ScenarioResult) -> Iterator[Target]:
        log = self._directory / "gateway.log"
        with running_gateway(stack, engine.port, self._cores.gateway, log) as gateway:
            result.ready_s = gateway.ready_s
            pids = {GATEWAY: [gateway.process.pid], "engine": [engine.process.pid], **stack.pids}
            yield Target(GATEWAY, gateway.port, stack.key, pids)
            result.resident_mb = resident_mb(gateway.process.pid)
            result.decisions = limiter_decisions(gateway.metrics_port)
