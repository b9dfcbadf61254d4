"""Whether a statement of SQL stays with one organization: told from its syntax tree, for every tenant table in it.

A row of a tenant's says whose it is in `organization_id` (`organization` itself in `id`). In each SELECT, UPDATE and
DELETE that column has to be compared with a parameter, or with that column of another table for which that is so: in a
condition that always holds, never inside an OR but for `($1 IS NULL OR organization_id = $1)`, which is the platform.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, TypeAlias

import sqlglot
from sqlglot import exp

from gateway.storage.tables import metadata

if TYPE_CHECKING:
    from collections.abc import Iterator

ORGANIZATION: Final = "organization"
TENANT_TABLES: Final = frozenset(
    {ORGANIZATION} | {name for name, table in metadata.tables.items() if "organization_id" in table.columns}
)
_PARAMETER: Final = re.compile(r"\$(\d+)")
Node: TypeAlias = tuple[int, str]
"""A table in a statement: the number of the SELECT (or UPDATE, DELETE) that it is read by, and its alias there."""


class Unreadable(Exception):
    """The text is no SQL that can be checked."""


@dataclass
class _Scope:
    """One SELECT, UPDATE or DELETE: its tables by alias, and the one that it is inside of."""

    number: int
    outer: _Scope | None
    tables: dict[str, str] = field(default_factory=dict)
    names: dict[str, set[str]] = field(default_factory=dict)


@dataclass
class _Statement:
    """What is known of a whole statement: which tables it reads, which are of one organization, which of the same."""

    tenants: dict[Node, str] = field(default_factory=dict)
    bound: set[Node] = field(default_factory=set)
    same: list[tuple[Node, Node]] = field(default_factory=list)
    scopes: int = 0


def unscoped(text: str) -> list[str]:
    """Return the tenant tables of a statement that it reads or writes beyond one organization. Raises Unreadable."""
    try:
        # `$2, $1` would be read as a string in dollar signs.
        statements = sqlglot.parse(_PARAMETER.sub(r":p\1", text), dialect="postgres")
    except sqlglot.errors.SqlglotError as error:
        raise Unreadable(str(error).splitlines()[0]) from None
    return [offence for statement in statements if statement is not None for offence in _offences(statement)]


def _offences(root: exp.Expr) -> list[str]:
    if isinstance(root, exp.Command):
        raise Unreadable(f"not understood: {root.sql()[:60]}")
    known = _Statement()
    ctes = {cte.alias for cte in root.find_all(exp.CTE)}
    _visit(root, None, known, ctes)
    bound, before = known.bound, -1
    while len(bound) != before:
        before = len(bound)
        for one, other in known.same:
            if one in bound or other in bound:
                bound |= {one, other}
    found = [f"{table} ({alias})" for (number, alias), table in known.tenants.items() if (number, alias) not in bound]
    return found + [offence for insert in root.find_all(exp.Insert) for offence in _inserted(insert)]


def _visit(node: exp.Expr, outer: _Scope | None, known: _Statement, ctes: set[str]) -> None:
    """Take in a node and all below it. What belongs to a SELECT is looked at with the tables of that SELECT in hand."""
    scope = outer
    if isinstance(node, exp.Select | exp.Update | exp.Delete):
        known.scopes += 1
        scope = _Scope(known.scopes, outer)
        for table in _tables(node):
            scope.tables[table.alias_or_name] = table.name
            if table.name in TENANT_TABLES and table.name not in ctes:
                known.tenants[scope.number, table.alias_or_name] = table.name
        for condition in _conditions(node):
            for conjunct in _conjuncts(condition):
                _take_in(conjunct, scope, known)
    for child in node.iter_expressions():
        _visit(child, scope, known, ctes)


def _tables(node: exp.Expr) -> Iterator[exp.Table]:
    """Yield the tables that a SELECT, UPDATE or DELETE names itself, not those of its subqueries."""
    if isinstance(node, exp.Update | exp.Delete) and isinstance(node.this, exp.Table):
        yield node.this
    sources: list[exp.Expr] = [node.args[name] for name in ("from", "from_") if node.args.get(name)]
    sources += node.args.get("joins") or []
    sources += node.args.get("using") or []
    pending = [source if isinstance(source, exp.Table) else source.this for source in sources]
    for source in pending:
        if isinstance(source, exp.Table):
            yield source
        pending += [join.this for join in source.args.get("joins") or []] if source else []


def _conditions(node: exp.Expr) -> Iterator[exp.Expr]:
    if node.args.get("where"):
        yield node.args["where"].this
    sources = [node, *(node.args[name].this for name in ("from", "from_") if node.args.get(name))]
    if isinstance(node, exp.Update | exp.Delete):
        sources.append(node.this)
    for source in sources:
        for join in source.args.get("joins") or ():
            if join.args.get("on"):
                yield join.args["on"]


def _conjuncts(condition: exp.Expr) -> Iterator[exp.Expr]:
    condition = condition.unnest()
    if isinstance(condition, exp.And):
        yield from _conjuncts(condition.left)
        yield from _conjuncts(condition.right)
    else:
        yield condition


def _take_in(conjunct: exp.Expr, scope: _Scope, known: _Statement) -> None:
    """Learn from one condition that always holds."""
    if isinstance(conjunct, exp.Or):
        unless, conjunct = conjunct.left.unnest(), conjunct.right.unnest()
        if not (isinstance(unless, exp.Is) and _is_parameter(unless.this) and isinstance(unless.expression, exp.Null)):
            return
        if not isinstance(conjunct, exp.EQ) or _bare(unless.this) not in map(
            _bare, (conjunct.this, conjunct.expression)
        ):
            return
    if not isinstance(conjunct, exp.EQ | exp.NullSafeEQ):
        return
    left, right = conjunct.left.unnest(), conjunct.right.unnest()
    nodes = [_organization_of(side, scope, known) for side in (left, right)]
    if nodes[0] is not None and nodes[1] is not None:
        known.same.append((nodes[0], nodes[1]))
    for node, other in ((nodes[0], right), (nodes[1], left)):
        if node is not None and (_is_parameter(other) or (isinstance(other, exp.Any) and _is_parameter(other.this))):
            known.bound.add(node)


def _organization_of(side: exp.Expr, scope: _Scope, known: _Statement) -> Node | None:
    """Return the table whose organization a column is, None for anything else."""
    if not isinstance(side, exp.Column):
        return None
    at: _Scope | None = scope
    while at is not None:
        for alias, table in at.tables.items():
            column = "id" if table == ORGANIZATION else "organization_id"
            if side.name == column and side.table in ("", alias) and (at.number, alias) in known.tenants:
                return at.number, alias
        at = at.outer
    return None


def _inserted(insert: exp.Insert) -> Iterator[str]:
    """Yield the table of an INSERT that does not say whose the row is. A new organization is its own."""
    target = insert.this
    table = target.this if isinstance(target, exp.Schema) else target
    if table.name not in TENANT_TABLES or table.name == ORGANIZATION:
        return
    columns = [column.name for column in target.expressions] if isinstance(target, exp.Schema) else []
    if "organization_id" not in columns:
        yield f"{table.name} (insert)"
        return
    place = columns.index("organization_id")
    source = insert.expression
    rows = source.expressions if isinstance(source, exp.Values) else [source]
    for row in rows:
        value = row.expressions[place].unalias() if len(row.expressions) > place else None
        of_another = isinstance(value, exp.Column) and value.name == "organization_id"
        if value is None or not (_is_parameter(value) or of_another):
            yield f"{table.name} (insert)"


def _is_parameter(side: exp.Expr) -> bool:
    return isinstance(_uncast(side), exp.Placeholder)


def _uncast(side: exp.Expr) -> exp.Expr:
    side = side.unnest()
    return _uncast(side.this) if isinstance(side, exp.Cast) else side


def _bare(side: exp.Expr) -> str:
    return _uncast(side).sql()
