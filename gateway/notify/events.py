"""What there is to tell: kinds of events, and the documents that are sent, which docs/webhooks.md describes."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

import msgspec

from gateway.units import format_usd, new_event_id

if TYPE_CHECKING:
    from uuid import UUID

    from gateway.domain.budget import BudgetKey
    from gateway.units import PicoUsd

BUDGET_THRESHOLD: Final = "budget.threshold"
KEY_REVOKED_USED: Final = "key.revoked_used"
TEST: Final = "webhook.test"

KINDS: Final = (BUDGET_THRESHOLD, KEY_REVOKED_USED)
"""What a webhook can be for; TEST comes when it is asked for, whatever a webhook is for."""

THRESHOLDS: Final = (50, 80, 100)
"""In percent of a budget's amount."""


@dataclass(frozen=True, slots=True)
class Event:
    """Something that is told once. `once` names it: whoever notices it too, or again, names it the same."""

    id: UUID
    organization_id: UUID | None
    kind: str
    once: str
    payload: str

    @classmethod
    def now(cls, organization_id: UUID | None, kind: str, once: str, data: dict[str, Any]) -> Event:
        """Return what happens at this moment, its document being `data` with kind and time around it."""
        document = {"type": kind, "timestamp": dt.datetime.now(dt.UTC), "data": data}
        return cls(new_event_id(), organization_id, kind, once, msgspec.json.encode(document).decode())


@dataclass(frozen=True, slots=True)
class BudgetRule:
    """A rule of the database that a budget is part of, with the names that people know. Amounts by period."""

    id: UUID
    organization_id: UUID
    organization: str
    subject: str | None


def budget_event(
    rule: BudgetRule,
    budget: BudgetKey,
    amount: PicoUsd,
    spent: PicoUsd,
    *,
    reason: Literal["spent", "refused"],
    threshold: int,
) -> Event:
    """Return that a part of a budget is spent, or that a request was refused for what is left of it.

    Another amount of the same budget is another event.
    """
    day = f"{budget.period_start:%Y-%m-%d}"
    mark = str(threshold) if reason == "spent" else reason
    data = {
        "organization_id": rule.organization_id,
        "organization": rule.organization,
        "limit_id": rule.id,
        "level": budget.level.value,
        "subject_id": budget.subject_id,
        "subject": rule.subject,
        "model": budget.model,
        "period": budget.period.value,
        "period_start": budget.period_start,
        "period_end": budget.period_end,
        "threshold_percent": threshold,
        "reason": reason,
        "budget_usd": format_usd(amount),
        "spent_usd": format_usd(spent),
    }
    once = f"budget:{rule.id}:{budget.period}:{day}:{mark}:{amount}"
    return Event.now(rule.organization_id, BUDGET_THRESHOLD, once, data)


@dataclass(frozen=True, slots=True)
class RevokedKey:
    """A key that somebody goes on using, without its secret."""

    id: UUID
    organization_id: UUID
    organization: str
    public_id: str
    name: str
    team_id: UUID
    team: str
    user_id: UUID | None
    revoked_at: dt.datetime


def key_event(key: RevokedKey, address: str, at: dt.datetime) -> Event:
    """Return that a revoked key was shown by somebody who has its secret: once an hour, whoever sees it."""
    data = {
        "organization_id": key.organization_id,
        "organization": key.organization,
        "key_id": key.id,
        "public_id": key.public_id,
        "name": key.name,
        "team_id": key.team_id,
        "team": key.team,
        "user_id": key.user_id,
        "revoked_at": key.revoked_at.astimezone(dt.UTC),
        "used_at": at,
        "address": address,
    }
    return Event.now(key.organization_id, KEY_REVOKED_USED, f"key:{key.id}:{at:%Y-%m-%dT%H}", data)


def ping_event(organization_id: UUID | None, webhook_id: UUID) -> Event:
    """Return a ping, which is about nothing but the webhook."""
    return Event.now(organization_id, TEST, f"test:{new_event_id()}", {"webhook_id": webhook_id})
