"""Runs scenarios: the same load direct to an engine, and through the gateway (or nginx) on its own core, in turns.

Turns rather than blocks, so that what disturbs the machine for a while disturbs both sides alike.
"""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from bench.accounting import CpuSample, Memory, cpu_ns, memory_of, sample_cpu
from bench.ledger import LedgerCheck, read_totals
from bench.nginx import running_nginx
from bench.pair import LoadResult, run_load, running_engine
from bench.payloads import write_request
from bench.schedule import DIRECT, GATEWAY, NGINX
from bench.servers import MODEL, UPSTREAM_MODEL, limiter_decisions, running_gateway

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from bench.nginx import NginxProgram
    from bench.pair import Engine
    from bench.pinning import Cores
    from bench.scenarios import Scenario
    from bench.schedule import Plan
    from bench.servers import Gateway, Stack
    from bench.toolchain import Tools

GATEWAY_CORE, OTHER_CORES = "gateway's core", "other cores"
GRANTED = "granted"  # the limiter's word for a request that Redis has let through
PLAIN_KEY = "sk-none"


@dataclass(frozen=True, slots=True)
class Run:
    """One run of the load client, and what each group of processes used in its window.

    `cpu_s` is CPU time, `shares` the same as a share of one core; both also say how busy the gateway's core and the
    others (summed) were, for whatever program. `memory` is that of what was measured, under load; None for direct.
    """

    load: LoadResult
    cpu_s: Mapping[str, float]
    shares: Mapping[str, float]
    memory: Memory | None = None


@dataclass(frozen=True, slots=True)
class Start:
    """One start of the gateway: seconds to its first good /readyz, CPU time used until then, memory when idle."""

    ready_s: float
    cpu_s: float
    memory: Memory


@dataclass(slots=True)
class ScenarioResult:
    """All runs of one scenario by what stood in front of the engine, and what was seen of the gateway.

    `idle` is the memory of what was measured before any load, by target.
    """

    scenario: Scenario
    runs: dict[str, list[Run]] = field(default_factory=dict)
    starts: list[Start] = field(default_factory=list)
    idle: dict[str, Memory] = field(default_factory=dict)
    ledger: LedgerCheck | None = None
    decisions: dict[str, int] = field(default_factory=dict)

    @property
    def limited_by_redis(self) -> bool:
        """Whether Redis granted every answered request: a gateway that fell back to local limits does less work."""
        return self.ledger is None or self.decisions == {GRANTED: self.ledger.answered}


@dataclass(frozen=True, slots=True)
class Target:
    """Where a load goes: a port, the key to send, and the process ids whose CPU time is counted, by group.

    `measured` is the process in front of the engine.
    """

    name: str
    port: int
    key: str
    pids: Mapping[str, Sequence[int]]
    measured: int | None = None


class Runner:
    """Measures scenarios: direct, behind `nginx` when there is one, and behind the gateway when there is a stack."""

    def __init__(
        self,
        tools: Tools,
        cores: Cores,
        plan: Plan,
        directory: Path,
        *,
        nginx: NginxProgram | None = None,
        stack: Stack | None = None,
    ) -> None:
        self._tools = tools
        self._cores = cores
        self._plan = plan
        self._directory = directory
        self._nginx_program = nginx
        self._stack = stack

    def measure(self, scenario: Scenario, progress: Callable[[str], None]) -> ScenarioResult:
        """Run one scenario as often as planned; `progress` is told what runs. Raises BenchError when a run fails."""
        result = ScenarioResult(scenario)
        if scenario.kind == "start-up":
            self._start_often(scenario, result, progress)
            return result
        before = read_totals(self._stack.postgres_dsn) if self._stack else None
        with ExitStack() as opened:
            targets = [opened.enter_context(self._direct(scenario))]
            if self._nginx_program:
                targets.append(opened.enter_context(self._nginx(self._nginx_program, scenario)))
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

    def _start_often(self, scenario: Scenario, result: ScenarioResult, progress: Callable[[str], None]) -> None:
        assert self._stack is not None, "only a gateway has a start to measure"
        for number in range(self._plan.starts):
            progress(f"{scenario.name}: start {number + 1} of {self._plan.starts}")
            with self._engine(scenario, GATEWAY) as engine, self._started(self._stack, engine, result):
                pass

    def _take_turns(
        self, scenario: Scenario, targets: Sequence[Target], result: ScenarioResult, progress: Callable[[str], None]
    ) -> None:
        result.idle = {target.name: memory_of(target.measured) for target in targets if target.measured}
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
        memory: list[Memory] = []
        cores = {GATEWAY_CORE: self._cores.gateway, OTHER_CORES: self._cores.others}

        def on_mark(mark: str) -> None:
            samples[mark] = sample_cpu(target.pids, cores)
            if mark == "end" and target.measured:
                memory.append(memory_of(target.measured))

        timing = self._plan.timing(scenario, target.name)
        load = run_load(self._tools, target.port, request, scenario.load, timing, on_mark)
        used_s = samples["begin"].used_until(samples["end"])
        shares = samples["begin"].shares_until(samples["end"])
        return Run(
            load,
            {**used_s, "load": load.cpu_s},
            {**shares, "load": load.cpu_s / load.seconds},
            memory[0] if memory else None,
        )

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
    def _nginx(self, program: NginxProgram, scenario: Scenario) -> Iterator[Target]:
        with (
            self._engine(scenario, NGINX) as engine,
            running_nginx(program, engine.port, self._cores.gateway, self._directory / NGINX) as nginx,
        ):
            pids = {NGINX: [nginx.process.pid], "engine": [engine.process.pid]}
            yield Target(NGINX, nginx.port, PLAIN_KEY, pids, nginx.process.pid)

    @contextmanager
    def _started(self, stack: Stack, engine: Engine, result: ScenarioResult) -> Iterator[Gateway]:
        log = self._directory / "gateway.log"
        with running_gateway(stack, engine.port, self._cores.gateway, log) as gateway:
            pid = gateway.process.pid
            result.starts.append(Start(gateway.ready_s, cpu_ns(pid) / 1e9, memory_of(pid)))
            yield gateway

    @contextmanager
    def _gateway(self, stack: Stack, engine: Engine, result: ScenarioResult) -> Iterator[Target]:
        with self._started(stack, engine, result) as gateway:
            pid = gateway.process.pid
            pids = {GATEWAY: [pid], "engine": [engine.process.pid], **stack.pids}
            yield Target(GATEWAY, gateway.port, stack.key, pids, pid)
            result.decisions = limiter_decisions(gateway.metrics_port)
