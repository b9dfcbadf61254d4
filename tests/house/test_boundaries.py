"""Who may do what: read the environment, print, speak SQL, import whom. What import-linter cannot say is said here."""

from __future__ import annotations

import ast
import re
import tomllib
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.source import REPOSITORY, Module, fail_for, modules

if TYPE_CHECKING:
    from collections.abc import Iterator

ENVIRONMENT = re.compile(r"\b(?:os|posix)\.(?:environb?|getenvb?)\b")
SQL = re.compile(
    r"\s*(?:SELECT\b.*\bFROM\b|SELECT\s+\w+\s*\(|INSERT\s+INTO\b|UPDATE\s+\w+\s+SET\b|DELETE\s+FROM\b|WITH\s+\w+\s+AS\b)",
    re.DOTALL | re.IGNORECASE,
)


def test_only_the_settings_read_the_environment() -> None:
    fail_for(
        f"{module}:{node.lineno} {ast.unparse(node)}"
        for module in modules("gateway", "alembic")
        if module.package != "settings"
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Attribute) and ENVIRONMENT.fullmatch(ast.unparse(node))
    )
    fail_for(
        f"{module}:{line} imports {name}"
        for module in modules("gateway", "alembic")
        for line, name in module.imports()
        if ENVIRONMENT.fullmatch(name)
    )


def test_nobody_prints() -> None:
    """People are shown things by Rich and told things by the log; the commands have `gateway.cli.output`."""
    fail_for(
        f"{module}:{node.lineno}"
        for module in modules("gateway", "tests", "alembic")
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    )


def test_sql_lives_with_what_stores() -> None:
    """Statements stand in `*_store.py`, `settle/`, `admin/` and `storage/`.

    All of `settle/`, not its ledger alone: prices and records belong to the same transaction of thought. Simulated or
    embedded servers (`dev/`) may make roles and databases, which no statement on a table does.
    """
    fail_for(
        f"{module}:{line} {' '.join(statement.split())[:60]}"
        for module in modules("gateway")
        if module.package not in {"admin", "settle", "storage"} and not module.path.name.endswith("_store.py")
        for line, statement in _statements(module)
    )


def test_litellm_is_imported_by_providers_alone() -> None:
    """Also in functions, where an import is hidden from who reads the head of a file."""
    fail_for(
        f"{module}:{line} {name}"
        for module in modules("gateway")
        if module.package != "providers"
        for line, name in module.imports()
        if name.partition(".")[0] == "litellm"
    )


def test_the_migrations_do_not_shadow_the_library() -> None:
    assert not (REPOSITORY / "alembic" / "__init__.py").exists()


def test_the_import_contracts_name_every_module() -> None:
    """A new package must not slip past a contract because nobody added it to the list."""
    packages = {module.package for module in modules("gateway")} - {"__init__"}
    layers, litellm, engine = _contracts()
    named = {name.strip(" ()") for layer in layers["layers"] for name in layer.split("|")}
    assert packages <= named
    assert set(litellm["source_modules"]) == {f"gateway.{name}" for name in packages - {"providers"}}
    assert set(engine["forbidden_modules"]) == {f"gateway.{name}" for name in packages - {"dev"}}


@pytest.mark.parametrize("alone", ["engine", "replay"])
def test_the_simulated_engine_and_the_replay_stand_alone(alone: str) -> None:
    found = [module for module in modules("gateway") if module.path.is_relative_to(f"gateway/dev/{alone}")]
    assert found
    fail_for(
        f"{module}:{line} {name}"
        for module in found
        for line, name in module.imports()
        if name.partition(".")[0] == "gateway" and not f"{name}.".startswith(f"gateway.dev.{alone}.")
    )


def _contracts() -> list[dict[str, Any]]:
    settings = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
    contracts: list[dict[str, Any]] = settings["tool"]["importlinter"]["contracts"]
    return contracts


def _statements(module: Module) -> Iterator[tuple[int, str]]:
    """Yield line and text of what looks like SQL; what an f-string fills in counts as one word."""
    for node in ast.walk(module.tree):
        if isinstance(node, ast.JoinedStr):
            text = "".join(str(part.value) if isinstance(part, ast.Constant) else "x" for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            text = node.value
        else:
            continue
        if SQL.match(text):
            yield node.lineno, text
