"""Every statement of the control plane on a tenant's table stays with one organization, or says why it does not.

An exception is marked where it stands, by a comment `# unscoped: why` at its last line or at the line before its first.
"""

from __future__ import annotations

import ast
import re
from typing import TYPE_CHECKING

import pytest

from tests.support.source import Module, fail_for, modules
from tests.support.sql_in_source import Statement, statements, statements_of
from tests.support.tenant_sql import Unreadable, unscoped

if TYPE_CHECKING:
    from collections.abc import Iterator

MARK = re.compile(r"# unscoped: \S.{9,}")
MARKED_MAX = 30
"""How many exceptions there are at most. More of them is a decision, not a detail."""


def checked() -> list[Module]:
    return [module for module in modules("gateway") if module.package == "admin"]


def offence(statement: Statement) -> str | None:
    """Return what is wrong with a statement, None when it stays with one organization."""
    if statement.unresolved is not None:
        return f"what it is made of is known at run time alone: {statement.unresolved}"
    try:
        found = unscoped(statement.text)
    except Unreadable as error:
        return f"cannot be read: {error}"
    return f"not held to one organization: {', '.join(found)}" if found else None


def offences(module: Module) -> Iterator[tuple[Statement, str]]:
    for statement in statements(module):
        wrong = offence(statement)
        if wrong is not None:
            yield statement, wrong


def marks(module: Module) -> set[int]:
    return {line for line, text in module.comments() if MARK.search(text)}


def lines_of(statement: Statement) -> set[int]:
    return {statement.line - 1, statement.end_line}


def test_every_statement_stays_with_one_organization() -> None:
    fail_for(
        f"{module}:{statement.line} {wrong}"
        for module in checked()
        for statement, wrong in offences(module)
        if not lines_of(statement) & marks(module)
    )


def test_exceptions_are_few_and_needed() -> None:
    fail_for(
        f"{module}:{line} nothing here needs to be unscoped"
        for module in checked()
        for line in marks(module) - {line for statement, _ in offences(module) for line in lines_of(statement)}
    )
    assert sum(len(marks(module)) for module in checked()) <= MARKED_MAX


@pytest.mark.parametrize(
    "text",
    [
        "SELECT name FROM team WHERE organization_id = $1",
        "SELECT name FROM organization WHERE id = $1 FOR UPDATE",
        "SELECT name FROM team WHERE ($1::uuid IS NULL OR organization_id = $1) AND ($2::uuid IS NULL OR id > $2)",
        "SELECT 1 FROM team AS t JOIN organization AS o ON o.id = t.organization_id WHERE o.id = $1",
        """
        SELECT app_user.name FROM app_user WHERE app_user.organization_id = $1 AND EXISTS (
            SELECT FROM membership WHERE membership.organization_id = app_user.organization_id)
        """,
        "UPDATE team SET name = $3 WHERE organization_id = $1 AND id = $2",
        "DELETE FROM team USING app_user u WHERE u.organization_id = $1 AND team.organization_id = u.organization_id",
        "INSERT INTO team (organization_id, name) VALUES ($2, $1) RETURNING id",
        "INSERT INTO team (organization_id, name) SELECT organization_id, $2 FROM app_user WHERE organization_id = $1",
        "INSERT INTO organization (name) VALUES ($1)",
        "SELECT id FROM model_price WHERE model = $1",
        "WITH gone AS (DELETE FROM team WHERE organization_id = $1 RETURNING 1) SELECT count(*) FROM gone",
    ],
)
def test_what_stays_with_one_organization_passes(text: str) -> None:
    assert unscoped(text) == []


@pytest.mark.parametrize(
    ("text", "tables"),
    [
        ("SELECT name FROM team", ["team (team)"]),
        ("SELECT name FROM team WHERE id = $1", ["team (team)"]),
        ("SELECT name FROM team WHERE organization_id = $1 OR id = $2", ["team (team)"]),
        ("SELECT name FROM team WHERE ($2::uuid IS NULL OR organization_id = $1)", ["team (team)"]),
        ("SELECT name FROM team WHERE NOT organization_id = $1", ["team (team)"]),
        ("SELECT name FROM team WHERE organization_id <> $1", ["team (team)"]),
        ("SELECT name FROM team WHERE organization_id = id", ["team (team)"]),
        ("SELECT 1 FROM team JOIN app_user ON true WHERE team.organization_id = $1", ["app_user (app_user)"]),
        ("SELECT 1 FROM team, app_user WHERE team.organization_id = $1", ["app_user (app_user)"]),
        ("SELECT 1 FROM api_key k JOIN team ON team.id = k.team_id WHERE k.organization_id = $1", ["team (team)"]),
        ("SELECT (SELECT name FROM team WHERE id = t.id) FROM team AS t WHERE t.organization_id = $1", ["team (team)"]),
        ("SELECT 1 FROM team WHERE organization_id = $1 UNION ALL SELECT 1 FROM app_user", ["app_user (app_user)"]),
        ("UPDATE team SET name = $2 WHERE id = $1", ["team (team)"]),
        ("UPDATE api_key SET revoked_at = now() FROM team WHERE team.organization_id = $1", ["api_key (api_key)"]),
        ("DELETE FROM membership WHERE team_id = $1", ["membership (membership)"]),
        ("WITH gone AS (DELETE FROM team WHERE id = $1 RETURNING 1) SELECT 1 FROM gone", ["team (team)"]),
        ("INSERT INTO team (name) VALUES ($1)", ["team (insert)"]),
        ("INSERT INTO team (organization_id, name) VALUES (gen_random_uuid(), $1)", ["team (insert)"]),
    ],
)  # fmt: skip
def test_what_does_not_is_found(text: str, tables: list[str]) -> None:
    assert unscoped(text) == tables


def test_f_strings_are_followed_to_their_constants() -> None:
    source = """
async def f(db, lock, column):
    await db.fetch(f"{SELECT} AND id = $2 {LOCK if lock else ''}")
    await db.fetch(f"SELECT {COLUMN} FROM team {'WHERE organization_id = $1' if lock else ''}")
    await db.fetch(f"SELECT {column} FROM team WHERE organization_id = $1")
    await db.fetch("SELECT id FROM team WHERE" + column)
"""
    constants = {"SELECT": "SELECT 1 FROM team WHERE organization_id = $1", "LOCK": "FOR UPDATE", "COLUMN": "name"}
    found = [(each.line, offence(each)) for each in statements_of(ast.parse(source), constants)]
    assert [line for line, wrong in found if wrong is None] == [3, 3, 4]
    assert [(line, wrong and wrong.partition(":")[0]) for line, wrong in found if wrong is not None] == [
        (4, "not held to one organization"),
        (5, "what it is made of is known at run time alone"),
        (6, "cannot be read"),
    ]
