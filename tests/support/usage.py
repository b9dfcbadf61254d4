"""Usage reports as tests ask for them: by one thing, whole or a page."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.admin.usage import ROWS_MAX, Asked, Period, Report, UsageRow, usage_report
from gateway.admin.usage_sql import Grouping, Order

if TYPE_CHECKING:
    from gateway.admin.database import Database
    from gateway.admin.scope import Scope


async def usage_rows(
    db: Database, scope: Scope, by: Grouping, period: Period, *, organization: str | None = None
) -> list[UsageRow]:
    """Return all rows of a report, the most expensive first."""
    return (await usage_report(db, scope, Asked(period, (by,)), organization=organization)).rows


async def usage_page(
    db: Database, scope: Scope, by: Grouping, period: Period, *, limit: int = ROWS_MAX, after: str | None = None
) -> Report:
    """Return one page of a report."""
    return await usage_report(db, scope, Asked(period, (by,), order=Order.ID, limit=limit, after=after))
