"""The suite itself: real parts outside `unit/`, waiting in one way, and folders that say what a test is."""

from __future__ import annotations

import ast
import re

from tests.support.source import REPOSITORY, fail_for, modules

KINDS = frozenset(
    {"chaos", "contract", "faults", "guarantees", "hostile", "house", "integration", "migrations", "process"}
    | {"property", "real_engine", "support", "unit"}
)
POLLING_HELPER = "tests/support/waiting.py"
PRETENCE = re.compile(r"unittest\.mock|\bmock\b|fakeredis|pytest_httpx|^responses\b|respx|aioresponses|freezegun")
SKIPPING = frozenset(
    {"pytest.skip", "pytest.importorskip", "pytest.mark.skip", "pytest.mark.skipif", "pytest.mark.xfail"}
)


def test_every_test_is_of_a_kind() -> None:
    folders = {module.path.parts[1] for module in modules("tests") if len(module.path.parts) > 2}
    assert folders <= KINDS
    fail_for(module for module in modules("tests") if module.path.match("tests/test_*.py"))


def test_unit_tests_mirror_the_package() -> None:
    """A folder of `tests/unit` is a folder of the gateway (or `bench`) by the same name."""
    fail_for(
        module
        for module in modules("tests")
        if module.path.is_relative_to("tests/unit")
        for folder in [module.path.relative_to("tests/unit").parent]
        if not (REPOSITORY / "gateway" / folder).is_dir() and not (REPOSITORY / folder).is_dir()
    )


def test_tests_wait_for_conditions_and_never_for_a_time() -> None:
    """`sleep(0)` gives a turn to others and is no wait."""
    fail_for(
        f"{module}:{call.lineno} {ast.unparse(call)}"
        for module in modules("tests")
        if str(module) != POLLING_HELPER
        for call in ast.walk(module.tree)
        if isinstance(call, ast.Call)
        and ast.unparse(call.func).rpartition(".")[2] == "sleep"
        and [ast.unparse(argument) for argument in call.args] != ["0"]
    )


def test_nothing_is_pretended_outside_unit_tests() -> None:
    fail_for(
        f"{module}:{line} {name}"
        for module in modules("tests")
        if not module.path.is_relative_to("tests/unit")
        for line, name in module.imports()
        if PRETENCE.search(name)
    )


def test_nothing_is_skipped() -> None:
    """A server or a program that is missing fails the tests that need it."""
    fail_for(
        f"{module}:{node.lineno} {name}"
        for module in modules("tests")
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Attribute) and (name := ast.unparse(node)) in SKIPPING
    )
