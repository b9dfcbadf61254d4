"""What a run leaves for who has to find out: a folder with the plan, the logs, the facts and the offending rows."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, is_dataclass
from typing import TYPE_CHECKING, Any

from tests.support.source import REPOSITORY

if TYPE_CHECKING:
    from pathlib import Path

    from tests.chaos.facts import Facts
    from tests.chaos.findings import Finding
    from tests.chaos.plan import Fault

ROWS_SHOWN_MAX = 3
TEXT_SHOWN_MAX = 600


def fresh_folder(name: str) -> Path:
    """Return an empty folder for one run; what an earlier run of the same name left there is gone."""
    folder = REPOSITORY / "build" / "chaos" / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def write_evidence(folder: Path, faults: list[Fault], facts: Facts | None, findings: list[Finding]) -> None:
    """Write plan, facts and findings, a file each, beside the replicas' logs that are there already."""
    (folder / "plan.txt").write_text("".join(f"{fault}\n" for fault in faults))
    if facts is not None:
        kinds = vars(facts)
        for name in ("attempts", "opens", "events", "adjustments", "served"):
            (folder / f"{name}.jsonl").write_text("".join(f"{_json(row)}\n" for row in kinds[name]))
        rest = {name: value for name, value in kinds.items() if not (folder / f"{name}.jsonl").exists()}
        (folder / "facts.json").write_text(_json(rest, indent=1))
    for number, finding in enumerate(findings):
        rows = "".join(f"{_json(row)}\n" for row in finding.rows)
        (folder / f"finding-{number}-{finding.check}.txt").write_text(f"{finding}\n\n{rows}")


def told(folder: Path, seed: int, findings: list[Finding]) -> str:
    """Return what people are told of a run that failed."""
    lines = [f"chaos with --seed {seed} found {len(findings)} faults; all of them, logs and rows: {folder}"]
    for finding in findings:
        lines.append(f"* {finding}"[:TEXT_SHOWN_MAX])
        lines += [f"    {_json(row)}"[:TEXT_SHOWN_MAX] for row in finding.rows[:ROWS_SHOWN_MAX]]
    return "\n".join(lines)


def _json(value: Any, indent: int | None = None) -> str:
    return json.dumps(value, default=_plain, indent=indent)


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    return str(value)
