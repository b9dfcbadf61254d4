"""What a reconciliation finds: accounts that should agree and do not, by how much, and what could not be compared."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum


class Check(StrEnum):
    """Which two accounts are held against each other."""

    CLOSES = "closes"  # openings and ends of requests
    ROLLUPS = "rollups"  # the ledger and its sums
    REPLICAS = "replicas"  # the ledger and what each replica counted
    ENGINES = "engines"  # the ledger and what each engine counted


@dataclass(frozen=True, slots=True)
class Drift:
    """Two accounts of one thing that differ by more than is allowed, in whole units of `what`."""

    check: Check
    subject: str
    what: str
    ledger: int
    other: int
    allowed: int = 0

    @property
    def difference(self) -> int:
        """How much more the other account has than the ledger."""
        return self.other - self.ledger


@dataclass(frozen=True, slots=True)
class NotCompared:
    """Something that has no second account now."""

    check: Check
    subject: str
    reason: str


@dataclass(slots=True)
class Findings:
    """What one check, or all of them, came to. `compared` counts the things looked at, by check."""

    drifts: list[Drift] = field(default_factory=list)
    not_compared: list[NotCompared] = field(default_factory=list)
    compared: dict[Check, int] = field(default_factory=dict)

    def add(self, other: Findings) -> None:
        """Take over what another check found."""
        self.drifts += other.drifts
        self.not_compared += other.not_compared
        for check, count in other.compared.items():
            self.compared[check] = self.compared.get(check, 0) + count

    def drift_tokens(self, check: Check) -> int:
        """Return by how many tokens the accounts of a check differ in all, whatever the direction."""
        return sum(abs(drift.difference) for drift in self.drifts if drift.check is check and "tokens" in drift.what)
