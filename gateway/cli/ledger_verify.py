"""`penstock ledger verify`: what the reconciliation found, as a table for people and a document for scripts."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from gateway.admin.database import session_on
from gateway.cli.output import emit_json, emit_line, emit_table
from gateway.settings import load_config
from gateway.settle.drift import Check, Drift, Findings
from gateway.settle.reconcile import reconcile

if TYPE_CHECKING:
    from pathlib import Path

    from gateway.admin.usage import Period

_COLUMNS = {
    "check": "check",
    "what of": "subject",
    "what": "what",
    "ledger": "ledger",
    "other": "other",
    "difference": "difference",
    "allowed": "allowed",
}


@dataclass(frozen=True, slots=True)
class _Row:
    """A line of the table."""

    check: str
    subject: str
    what: str
    ledger: int
    other: int
    difference: str
    allowed: int


async def verify_on(
    address: str, period: Period, config: Path | None, *, new_baseline: bool, wait_s: float
) -> Findings:
    """Reconcile what the database at `address` holds. Raises GatewayError, ConfigError."""
    engines = None if config is None else load_config(config, with_credentials=False)
    async with session_on(address) as db:
        return await reconcile(db, period.since, period.until, engines, new_baseline=new_baseline, rest_s_max=wait_s)


def show_findings(found: Findings, *, agrees: bool, as_json: bool) -> None:
    """Write what was found."""
    if as_json:
        emit_json(
            {
                "agrees": agrees,
                "compared": {str(check): found.compared.get(check, 0) for check in Check},
                "drifts": [asdict(drift) | {"difference": drift.difference} for drift in found.drifts],
                "not_compared": found.not_compared,
            }
        )
        return
    if found.drifts:
        emit_table(_COLUMNS, map(_row, found.drifts), empty="")
    for one in found.not_compared:
        emit_line(f"not compared: {one.check} {one.subject}: {one.reason}")
    emit_line(_sentence(found))


def _row(drift: Drift) -> _Row:
    return _Row(
        str(drift.check),
        drift.subject,
        drift.what,
        drift.ledger,
        drift.other,
        f"{drift.difference:+,}",
        drift.allowed,
    )


def _sentence(found: Findings) -> str:
    counts = found.compared
    looked_at = (
        f"{counts.get(Check.CLOSES, 0):,} openings and ends, {counts.get(Check.ROLLUPS, 0):,} days of rollups,"
        f" {counts.get(Check.REPLICAS, 0):,} replicas and {counts.get(Check.ENGINES, 0):,} engines"
    )
    if not found.drifts:
        return f"all that was compared agrees: {looked_at}"
    differ = len(found.drifts)
    return f"{differ} account{'s do' if differ > 1 else ' does'} not agree, of {looked_at}"
