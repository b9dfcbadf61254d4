"""Options that say what is allowed, shared by `key create` and `limit set`, and how a rule is told to people.

`none` in the place of a number takes the value away, where there can be one.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, TypeAlias

import typer

from gateway.cli.output import shown
from gateway.errors import InvalidRequest

if TYPE_CHECKING:
    from gateway.admin.limit_values import Count

PERIODS: Final = ("day", "week", "month", "session")
NONE: Final = "none"
_MONEY: Final = "_pico_usd"

RequestsPerMinute: TypeAlias = Annotated[
    str | None, typer.Option("--requests-per-minute", metavar="N", help="How many requests a minute.")
]
TokensPerMinute: TypeAlias = Annotated[
    str | None, typer.Option("--tokens-per-minute", metavar="N", help="How many tokens a minute, prompt and output.")
]
InputTokensPerMinute: TypeAlias = Annotated[
    str | None, typer.Option("--input-tokens-per-minute", metavar="N", help="How many tokens of prompts a minute.")
]
OutputTokensPerMinute: TypeAlias = Annotated[
    str | None, typer.Option("--output-tokens-per-minute", metavar="N", help="How many generated tokens a minute.")
]
ConcurrentRequests: TypeAlias = Annotated[
    str | None, typer.Option("--concurrent-requests", metavar="N", help="How many requests at once.")
]
MaxOutputTokens: TypeAlias = Annotated[
    str | None,
    typer.Option("--max-output-tokens", metavar="N", help="How many tokens one answer may have: it is cut there."),
]
BudgetUsd: TypeAlias = Annotated[
    str | None,
    typer.Option("--budget-usd", metavar="USD", help="How much may be spent in each --budget-period, such as 25.50."),
]
Period: TypeAlias = Annotated[
    Literal["day", "week", "month", "session"] | None,
    typer.Option("--budget-period", help="From midnight UTC, Monday, the first of the month, or by each session."),
]
StopsStreams: TypeAlias = Annotated[
    bool | None,
    typer.Option(
        "--budget-stops-streams/--no-budget-stops-streams",
        help="Begin streams as long as anything is left, and stop them when it is spent. Default: begin only what is"
        " covered whole.",
    ),
]


def limit_fields(
    *,
    budget_usd: str | None,
    budget_period: str | None,
    budget_stops_streams: bool | None,
    of_new: bool = False,
    **counts: str | None,
) -> dict[str, Any]:
    """Return what options say, as fields of the API: null takes a value away.

    `counts` are those of LimitValues, `of_new` for something that has no limits yet. Raises InvalidRequest for what is
    no number, nor `none` where that means something.
    """
    # Reading the options of a command, for --help and completion, must not take what only a call needs.
    from gateway.admin.limit_values import REMOVED, LimitValues, budget_amount, budget_column  # noqa: PLC0415 - see above
    from gateway.domain.principal import BudgetPeriod  # noqa: PLC0415 - see above

    if of_new:
        for name, text in {"budget_usd": budget_usd, **counts}.items():
            if _is_none(text):
                raise InvalidRequest(
                    f"'{_option(name)} {NONE}' takes a limit away, and a new key has none: leave it out"
                )
    if budget_usd is not None and budget_period is None:
        raise InvalidRequest("--budget-usd needs --budget-period day, week, month or session")
    if budget_period is not None and budget_usd is None:
        away = "" if of_new else f" (or '--budget-usd {NONE}' to take a budget away)"
        raise InvalidRequest(f"--budget-period needs --budget-usd{away}")
    values = {name: _count(name, text, of_new=of_new) for name, text in counts.items()}
    if budget_usd is not None and budget_period is not None:
        amount = REMOVED if _is_none(budget_usd) else budget_amount(budget_usd, "--budget-usd")
        values[budget_column(BudgetPeriod(budget_period))] = amount
    given = LimitValues.of(values | {"budget_stops_streams": budget_stops_streams}).given()
    return dict(_field(column, value) for column, value in given.items())


def _field(column: str, value: int | None) -> tuple[str, object]:
    """Return a column of LimitValues as the API has it: money is exact text in USD there."""
    from gateway.units import PicoUsd, format_usd  # noqa: PLC0415 - as above

    if not column.endswith(_MONEY):
        return column, value
    return column.removesuffix(_MONEY) + "_usd", None if value is None else format_usd(PicoUsd(int(value)))


def _count(name: str, text: str | None, *, of_new: bool) -> "Count":
    from gateway.admin.limit_values import REMOVED  # noqa: PLC0415 - as above

    if text is None:
        return None
    if _is_none(text):
        return REMOVED
    try:
        return int(text)
    except ValueError:
        away = "" if of_new else f", or '{NONE}' to take the limit away"
        raise InvalidRequest(f"'{_option(name)}' must be a whole number{away}") from None


def _is_none(text: str | None) -> bool:
    return text is not None and text.strip().lower() == NONE


def _option(name: str) -> str:
    return "--max-output-tokens" if name == "output_tokens_max" else f"--{name.replace('_', '-')}"


def allowed(rule: Mapping[str, Any]) -> list[str]:
    """Return what a rule allows, one text for each value: `1,000 tokens a minute`, `10 USD a month`."""
    texts: list[str] = []
    for unit in ("requests", "tokens", "input_tokens", "output_tokens"):
        rate, burst = rule[f"{unit}_per_minute"], rule[f"{unit}_burst"]
        if rate is not None:
            at_once = "" if burst is None else f" ({shown(burst)} at once)"
            texts.append(f"{shown(rate)} {unit.replace('_', ' ')} a minute{at_once}")
    if rule["concurrent_requests"] is not None:
        texts.append(f"{shown(rule['concurrent_requests'])} concurrent requests")
    if rule["output_tokens_max"] is not None:
        texts.append(f"{shown(rule['output_tokens_max'])} tokens an answer")
    for period in PERIODS:
        amount, spent = rule.get(f"budget_{period}_usd"), rule.get(f"spent_{period}_usd")
        if amount is not None:
            told = "" if spent is None else f" ({spent} spent)"
            texts.append(f"{amount} USD a {period}{told}{', stopping streams' if rule['budget_stops_streams'] else ''}")
    return texts
