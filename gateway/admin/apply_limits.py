"""The limits of one subject, brought to what a document declares: each rule as a whole."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gateway.admin.apply_plan import Run, at
from gateway.admin.limit_values import COLUMNS, REMOVED, LimitValues, budget_amount
from gateway.admin.limits import LimitRule, Subject, clear_limit, set_limit

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from uuid import UUID

    from gateway.admin.apply_document import DeclaredLimit
    from gateway.domain.principal import Level

_FIELDS = {column: column.replace("_pico_usd", "_usd") for column in COLUMNS}
"""By column, how a rule and a document name it."""


class Rules:
    """The rules of an organization as they were."""

    def __init__(self, rules: Iterable[LimitRule]) -> None:
        self._by_subject: dict[tuple[Level, UUID], dict[str | None, LimitRule]] = {}
        for rule in rules:
            self._by_subject.setdefault((rule.level, rule.subject_id), {})[rule.model] = rule

    def of(self, level: Level, subject_id: UUID) -> dict[str | None, LimitRule]:
        """Return the rules of one subject by model; None: the one for every model."""
        return self._by_subject.get((level, subject_id), {})


async def apply_limits(
    run: Run,
    rules: Rules,
    subject: tuple[Level, UUID],
    declared: Sequence[DeclaredLimit] | None,
    *,
    path: tuple[str, ...],
    place: tuple[str | int, ...],
) -> None:
    """Bring the rules of a subject to what is declared. `path` names it for people, `place` in the document."""
    if declared is None:
        return
    current = rules.of(*subject)
    reference = Subject(subject[0], str(subject[1]))
    for number, wanted in enumerate(declared):
        with at(*place, "limits", number):
            run.check_models(() if wanted.model is None else (wanted.model,))
            await _apply_rule(run, reference, current.get(wanted.model), wanted, path)
    if not run.options.prune:
        return
    for model in current.keys() - {wanted.model for wanted in declared}:
        with at(*place, "limits"):
            await clear_limit(run.db, run.scope, reference, model=model)
            run.deleted("limit", _path(path, model), _values(current[model]))


async def _apply_rule(
    run: Run, reference: Subject, rule: LimitRule | None, wanted: DeclaredLimit, path: tuple[str, ...]
) -> None:
    before = {} if rule is None else _values(rule)
    after = _values(wanted)
    names = [name for name in _FIELDS.values() if before.get(name) != after.get(name)]
    if not names:
        return
    given = {column: _given(column, before, after) for column, name in _FIELDS.items() if name in names}
    await set_limit(run.db, run.scope, reference, LimitValues.of(given), model=wanted.model)
    if rule is None:
        run.created("limit", _path(path, wanted.model), after)
    else:
        changed = {name: before.get(name) for name in names}, {name: after.get(name) for name in names}
        run.changed("limit", _path(path, wanted.model), *changed)


def _values(rule: LimitRule | DeclaredLimit) -> dict[str, Any]:
    """Return what a rule says, without what it does not say."""
    values = {name: getattr(rule, name) for name in _FIELDS.values()}
    return {name: value for name, value in values.items() if value not in (None, False)}


def _given(column: str, before: dict[str, Any], after: dict[str, Any]) -> Any:
    """Return a value as it is set; one that is no longer declared is taken away."""
    name = _FIELDS[column]
    value = after.get(name)
    if name == "budget_stops_streams":
        return bool(value)
    if value is None:
        return REMOVED if name in before else None
    return budget_amount(value, name) if column != name else value


def _path(path: tuple[str, ...], model: str | None) -> tuple[str, ...]:
    return path if model is None else (*path, f"model {model}")
