"""Prints the figures as a table, what was busy meanwhile, the checks of ledger and limits, and the warnings."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.box import SIMPLE_HEAD
from rich.table import Table

from bench.caveats import caveats_of, headroom, shares_of
from bench.figures import Bound, Figure, figures_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rich.console import Console

    from bench.ledger import LedgerCheck
    from bench.runner import ScenarioResult


def print_report(
    console: Console, facts: Mapping[str, object], results: Sequence[ScenarioResult], other_cores: int
) -> None:
    """Print the machine, the table of figures, who used which core, the ledger checks and the warnings."""
    console.print(f"{facts['cpu']}, {facts['cores']} cores, {facts['kernel']}, {facts['python']}")
    console.print(_figures_table([figure for result in results for figure in figures_of(result)]))
    measured = [result for result in results if result.ledger]
    if measured:
        console.print(_cores_table(measured))
    for result in measured:
        assert result.ledger is not None
        console.print(ledger_line(result.scenario.name, result.ledger))
        if not result.limited_by_redis:
            console.print(limiter_line(result.scenario.name, result.decisions, result.ledger.answered))
    for result in results:
        for caveat in caveats_of(result, other_cores):
            console.print(f"[bold yellow]warning[/] {caveat}")


def ledger_line(name: str, check: LedgerCheck) -> str:
    """Say how the ledger compares with the answers and with the engine's tokens."""
    ledger, engine = check.ledger, check.engine
    verdict = "[green]exact[/]" if check.exact else "[bold red]NOT exact[/]"
    return (
        f"ledger {name}: {verdict}: {ledger.closed:,} CLOSE events ({ledger.exact:,} ok and exact) and "
        f"{ledger.opened:,} OPEN for {check.answered:,} answers; "
        f"tokens {ledger.prompt_tokens:,} + {ledger.completion_tokens:,}, "
        f"the engine counted {engine.prompt_tokens:,} + {engine.completion_tokens:,}"
    )


def limiter_line(name: str, decisions: Mapping[str, int], answered: int) -> str:
    """Say that the gateway did not do all of its work: limits were decided without Redis, or more than answered."""
    counts = ", ".join(f"{decision} {count:,}" for decision, count in decisions.items())
    return (
        f"[bold red]limits {name}: Redis did not grant every request[/], so the figures are not those of the whole "
        f"path: {counts or 'no decisions'} for {answered:,} answers"
    )


def _figures_table(figures: Sequence[Figure]) -> Table:
    with_nginx = any(figure.nginx is not None for figure in figures)
    table = Table(title="Medians of the runs", title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("", no_wrap=True)
    for column in ["direct", *(["nginx"] if with_nginx else []), "gateway", "to direct", "target"]:
        table.add_column(column, justify="right", no_wrap=True)
    previous = None
    for figure in figures:
        if figure.scenario != previous:
            table.add_row(f"[bold]{figure.scenario}[/]")
        table.add_row(
            f"  {figure.name}, {figure.unit}",
            number(figure.direct),
            *([number(figure.nginx)] if with_nginx else []),
            number(figure.gateway),
            comparison(figure),
            target_text(figure),
        )
        previous = figure.scenario
    return table


def _cores_table(results: Sequence[ScenarioResult]) -> Table:
    title = "Share of a core while the gateway was measured"
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    names = list(dict.fromkeys(name for result in results for name in shares_of(result)))
    table.add_column("", no_wrap=True)
    for name in [*names, "headroom"]:
        table.add_column(name, justify="right", no_wrap=True)
    for result in results:
        shares, times = shares_of(result), headroom(result)
        percent = [f"{shares[name]:.0%}" if name in shares else "" for name in names]
        alone = f"x{number(times)}" if times and result.scenario.kind == "saturate" else ""
        table.add_row(result.scenario.name, *percent, alone)
    return table


def number(value: float | None) -> str:
    """Return a figure for people: three digits, whole numbers from 100 up; empty for None."""
    if value is None:
        return ""
    for least, digits in ((100, 0), (10, 1), (1, 2)):
        if abs(value) >= least:
            return f"{value:,.{digits}f}"
    return f"{value:.3f}"


def comparison(figure: Figure) -> str:
    """Return how the gateway's value stands to the direct one: times added for latencies, else the ratio."""
    if figure.difference is None or figure.ratio is None:
        return ""
    if figure.unit == "ms":
        return f"{'+' if figure.difference >= 0 else '-'}{number(abs(figure.difference))}"
    return f"x{number(figure.ratio)}"


def target_text(figure: Figure) -> str:
    """Return a figure's target and whether it is met, in Rich markup; empty without a target."""
    if figure.bound is None:
        return ""
    prefix = {"gateway": "", "difference": "+", "ratio": "x"}[figure.bound.of]
    text = f"{_sign(figure.bound)} {prefix}{number(figure.bound.value)}"
    if figure.met is None:
        return text
    return f"[green]{text} met[/]" if figure.met else f"[bold red]{text} MISSED[/]"


def _sign(bound: Bound) -> str:
    return "≤" if bound.better == "less" else "≥"
