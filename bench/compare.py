"""`python -m bench compare A.json B.json`: what has changed between two stored measurements."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.box import SIMPLE_HEAD
from rich.table import Table

from bench.report import number
from bench.schedule import GATEWAY

if TYPE_CHECKING:
    from rich.console import Console

    from bench.storage import Document, StoredFigure

MORE_IS_BETTER = frozenset({"requests/s", "chunks/s"})
# What two measurements must have in common for their figures to be comparable at all.
SAME_MACHINE = ("cpu", "cores", "kernel")
SAME_OPTIONS = ("runs", "seconds", "quick")


@dataclass(frozen=True, slots=True)
class Change:
    """A figure of the gateway in both measurements. `relative`: 0.1 is a tenth more; None when the first is zero.

    `better` is None when single runs of one measurement lie among those of the other: then it may be chance.
    """

    scenario: str
    name: str
    unit: str
    before: float
    after: float
    relative: float | None
    better: bool | None


def changes(before: Document, after: Document) -> list[Change]:
    """Return the figures of the gateway that both have, in the order of the second."""
    earlier = {_key(figure): figure for scenario in before.scenarios for figure in scenario.figures}
    found = []
    for figure in (figure for scenario in after.scenarios for figure in scenario.figures):
        former = earlier.get(_key(figure))
        if former is None or former.gateway is None or figure.gateway is None:
            continue
        relative = figure.gateway / former.gateway - 1 if former.gateway else None
        better = (figure.gateway > former.gateway) is (figure.unit in MORE_IS_BETTER)
        verdict = None if _overlap(former, figure) else better
        found.append(Change(*_key(figure), former.gateway, figure.gateway, relative, verdict))
    return found


def differences(before: Document, after: Document) -> list[str]:
    """Return what makes the two measurements hard to compare, in sentences."""
    pairs = [(name, before.machine.get(name), after.machine.get(name)) for name in SAME_MACHINE]
    pairs += [(name, before.options.get(name), after.options.get(name)) for name in SAME_OPTIONS]
    return [f"not the same {name}: {one} and {other}" for name, one, other in pairs if one != other]


def print_comparison(console: Console, before: Document, after: Document) -> None:
    """Print both commits, what differs between the conditions, and each figure of the gateway before and after."""
    for name, document in (("A", before), ("B", after)):
        console.print(f"{name}: {document.measured_at}, commit {document.machine.get('commit')}", highlight=False)
    for sentence in differences(before, after):
        console.print(f"[bold yellow]warning[/] {sentence}", highlight=False)
    found = changes(before, after)
    if not found:
        console.print("they have no figure of the gateway in common")
        return
    table = Table(title="The gateway, medians of the runs", title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    for column in ("", "A", "B", "change", ""):
        table.add_column(column, justify="left" if not column else "right", no_wrap=True)
    previous = None
    for change in found:
        if change.scenario != previous:
            table.add_row(f"[bold]{change.scenario}[/]")
        percent = "" if change.relative is None else f"{change.relative:+.1%}"
        row = (f"  {change.name}, {change.unit}", number(change.before), number(change.after), percent)
        table.add_row(*row, _verdict(change))
        previous = change.scenario
    console.print(table)


def _verdict(change: Change) -> str:
    if change.better is None:
        return "within the runs"
    return "[green]better[/]" if change.better else "[bold red]worse[/]"


def _key(figure: StoredFigure) -> tuple[str, str, str]:
    return figure.scenario, figure.name, figure.unit


def _overlap(one: StoredFigure, other: StoredFigure) -> bool:
    ones, others = one.values.get(GATEWAY, []), other.values.get(GATEWAY, [])
    return not ones or not others or (max(ones) >= min(others) and max(others) >= min(ones))
