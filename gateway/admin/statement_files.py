"""A statement as CSV for other programs, and as a page to read and print that loads nothing and runs nothing."""

from __future__ import annotations

import base64
import hashlib
from decimal import Decimal
from enum import StrEnum
from typing import TYPE_CHECKING

from jinja2 import Environment, PackageLoader, StrictUndefined

from gateway.admin.tabular import Column, Kind, to_csv

if TYPE_CHECKING:
    from gateway.admin.statements import Statement

_STYLE = """
:root { color-scheme: light; }
body { font: 14px/1.45 system-ui, sans-serif; margin: 0; color: #111; background: #fff; }
main { max-width: 60rem; margin: 0 auto; padding: 1.5rem; }
h1 { font-size: 1.5rem; margin: 0; }
h2 { font-size: 1.1rem; margin: 2rem 0 .5rem; }
dl { display: grid; grid-template-columns: max-content auto; gap: .15rem 1rem; }
dt { color: #555; }
dd { margin: 0; overflow-wrap: anywhere; }
table { border-collapse: collapse; width: 100%; }
th, td { border-bottom: 1px solid #ccc; padding: .3rem .5rem; text-align: left; overflow-wrap: anywhere; }
th.n, td.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; overflow-wrap: normal; }
tfoot td { font-weight: 600; border-bottom: 0; }
.draft { border: 2px solid #b00; color: #b00; padding: .5rem .75rem; font-weight: 600; }
thead { display: table-header-group; }
tr { break-inside: avoid; }
@media print { main { max-width: none; padding: 0; } @page { margin: 15mm; } }
"""
_SUMS = (
    "requests", "prompt_tokens", "cached_tokens", "completion_tokens", "reasoning_tokens", "estimated"
)  # fmt: skip
_COLUMNS = (
    *(Column(name) for name in ("statement", "organization_id", "organization", "month", "kind", "of_month")),
    *(Column(name) for name in ("team_id", "team", "model")),
    *(Column(name, Kind.COUNT) for name in _SUMS),
    Column("cost_usd", Kind.MONEY),
)


class StatementFormat(StrEnum):
    """How a statement is written."""

    JSON = "json"
    CSV = "csv"
    HTML = "html"


def as_csv(statement: Statement) -> bytes:
    """Return one line for each line of a statement; the first column is its number, or `draft`."""
    about = (
        "draft" if statement.number is None else str(statement.number),
        str(statement.organization_id),
        statement.organization,
        statement.month,
    )
    return to_csv(
        _COLUMNS,
        (
            (
                *(*about, line.kind, line.of_month, str(line.team_id), line.team, line.model),
                *(getattr(line, name) for name in (*_SUMS, "cost_usd")),
            )
            for line in statement.lines
        ),
    )


def page_headers() -> dict[str, str]:
    """Return the headers of the page: names come from tenants, and nothing that gets in by one would run."""
    digest = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
    return {
        "content-security-policy": f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none';"
        " form-action 'none'",
        "x-content-type-options": "nosniff",
        "referrer-policy": "no-referrer",
    }


def as_page(statement: Statement) -> bytes:
    """Return a page to read and to print. Whatever tenants are called is shown, not obeyed."""
    kinds = {"usage": f"Usage in {statement.month}", "adjustment": "Corrections of earlier months"}
    sections = [(kind, title, [line for line in statement.lines if line.kind == kind]) for kind, title in kinds.items()]
    template = _templates().get_template("statement.html.j2")
    page = template.render(style=_STYLE, statement=statement, sections=[each for each in sections if each[2]])
    return page.encode()


def _templates() -> Environment:
    made = Environment(
        loader=PackageLoader("gateway.admin"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters["count"] = lambda number: f"{number:,}"
    made.filters["usd"] = _usd
    return made


def _usd(amount: str) -> str:
    """Return an exact amount with two decimal places at least, and commas."""
    exact = Decimal(amount)
    return f"{exact:,.2f}" if exact == round(exact, 2) else f"{exact:,f}"
