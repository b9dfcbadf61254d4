"""The JSON file of a measurement: every figure and every run, what it was measured on, and what is missing and why."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import msgspec

from bench.caveats import caveats_of, headroom, shares_of
from bench.errors import BenchError
from bench.figures import figures_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from bench.pinning import Cores
    from bench.runner import ScenarioResult

FORMAT = 2  # of the file; higher when a reader of the former one would misread it


@dataclass(frozen=True, slots=True)
class Conditions:
    """What a measurement was made with. `nginx`: its version, or None and the reason; `error`: what ended it early."""

    machine: Mapping[str, object]
    options: Mapping[str, object]
    cores: Cores
    nginx: str | None = None
    nginx_missing_because: str | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredFigure:
    """One quantity as stored: medians by target, every run's value, and the target it is held to."""

    scenario: str
    name: str
    unit: str
    direct: float | None
    nginx: float | None
    gateway: float | None
    bound: dict[str, Any] | None
    values: dict[str, list[float]]
    ratio: float | None
    difference: float | None
    met: bool | None


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredScenario:
    """One scenario as stored: `runs` holds all that the load client and the kernel said, by target."""

    scenario: dict[str, Any]
    figures: list[StoredFigure]
    shares_of_a_core: dict[str, float]
    headroom: float | None
    caveats: list[str]
    starts: list[dict[str, Any]]
    idle_memory: dict[str, dict[str, float]]
    limiter_decisions: dict[str, int]
    limited_by_redis: bool
    ledger: dict[str, Any] | None
    runs: dict[str, list[dict[str, Any]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """A stored measurement."""

    format: int
    measured_at: str
    machine: dict[str, Any]
    options: dict[str, Any]
    cores: dict[str, Any]
    nginx: str | None
    nginx_missing_because: str | None
    error: str | None
    scenarios: list[StoredScenario]


def store(directory: Path, conditions: Conditions, results: Sequence[ScenarioResult]) -> Path:
    """Write everything that was measured to a new file in `directory` and return its path."""
    directory.mkdir(parents=True, exist_ok=True)
    now = datetime.now(UTC)
    path = directory / f"{now:%Y%m%dT%H%M%SZ}.json"
    cores = conditions.cores
    document = Document(
        format=FORMAT,
        measured_at=now.isoformat(timespec="seconds"),
        machine=dict(conditions.machine),
        options=dict(conditions.options),
        cores={
            "gateway": sorted(cores.gateway),
            "others": sorted(cores.others),
            "unused": sorted(cores.unused),
            "shared": cores.shared,
        },
        nginx=conditions.nginx,
        nginx_missing_because=conditions.nginx_missing_because,
        error=conditions.error,
        scenarios=[_scenario(result, len(cores.others)) for result in results],
    )
    path.write_text(json.dumps(asdict(document), indent=1) + "\n", "utf-8")
    return path


def read_document(path: Path) -> Document:
    """Read a stored measurement. Raises BenchError when the file cannot be read or is something else."""
    try:
        raw = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise BenchError(f"{path} cannot be read: {error}") from error
    if not isinstance(raw, dict) or raw.get("format") != FORMAT:
        raise BenchError(f"{path} is not a measurement in format {FORMAT}: measure again with this version")
    try:
        return msgspec.convert(raw, Document)
    except msgspec.ValidationError as error:
        raise BenchError(f"{path} is not a whole measurement: {error}") from error


def _scenario(result: ScenarioResult, other_cores: int) -> StoredScenario:
    return StoredScenario(
        scenario=asdict(result.scenario),
        figures=[
            StoredFigure(**asdict(figure), ratio=figure.ratio, difference=figure.difference, met=figure.met)
            for figure in figures_of(result)
        ],
        shares_of_a_core=shares_of(result),
        headroom=headroom(result),
        caveats=caveats_of(result, other_cores),
        starts=[asdict(start) for start in result.starts],
        idle_memory={target: asdict(memory) for target, memory in result.idle.items()},
        limiter_decisions=result.decisions,
        limited_by_redis=result.limited_by_redis,
        ledger={**asdict(result.ledger), "is_exact": result.ledger.exact} if result.ledger else None,
        runs={target: [asdict(run) for run in runs] for target, runs in result.runs.items()},
    )
