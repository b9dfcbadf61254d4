"""Sizes and docstrings: a module fits in a head, and says what it is for before it says anything else."""

from __future__ import annotations

import ast
from statistics import median

from tests.support.source import Module, fail_for, modules

MODULE_LINES_MAX = 300
MODULE_LINES_MEDIAN_MAX = 150
FUNCTION_LINES_MAX = 60
DOCSTRING_CHARS_MIN = 20
DATA_PATH = frozenset(
    {"admit", "app", "authenticate", "domain", "edge", "errors", "observe", "patience", "providers", "relay"}
    | {"resources", "route", "settle", "storage", "units"}
)

Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def test_every_module_says_what_it_is_for() -> None:
    fail_for(module for module in modules() if len(ast.get_docstring(module.tree) or "") < DOCSTRING_CHARS_MIN)


def test_no_module_is_long_and_half_of_them_are_short() -> None:
    fail_for(f"{module}: {len(module.lines)} lines" for module in modules() if len(module.lines) > MODULE_LINES_MAX)
    assert median(len(module.lines) for module in modules("gateway")) <= MODULE_LINES_MEDIAN_MAX
    assert median(len(module.lines) for module in modules("tests")) <= MODULE_LINES_MEDIAN_MAX


def test_no_function_is_long() -> None:
    fail_for(
        f"{module}:{function.lineno} {function.name}: {lines} lines"
        for module in modules()
        for function in module.functions()
        if (lines := (function.end_lineno or 0) - function.lineno + 1) > FUNCTION_LINES_MAX
    )


def test_what_the_data_path_offers_is_documented() -> None:
    fail_for(
        f"{module}:{definition.lineno} {definition.name}"
        for module in modules("gateway")
        if module.package in DATA_PATH
        for definition in _public(module)
        if not ast.get_docstring(definition)
    )


def _public(module: Module) -> list[Definition]:
    """Return the public functions and classes, and the public methods that are not another class's idea."""
    found: list[Definition] = []
    for node in module.tree.body:
        if not isinstance(node, Definition) or node.name.startswith("_"):
            continue
        found.append(node)
        if isinstance(node, ast.ClassDef) and not _is_callback_class(node):
            found += (
                method
                for method in node.body
                if isinstance(method, ast.FunctionDef | ast.AsyncFunctionDef)
                and not method.name.startswith("_")
                and not _is_declaration(method)
            )
    return found


def _is_declaration(method: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Whether it only says that something has this method, as Protocols do."""
    body = method.body[-1]
    return isinstance(body, ast.Expr) and isinstance(body.value, ast.Constant) and body.value.value is ...


def _is_callback_class(node: ast.ClassDef) -> bool:
    """Whether its methods are named and documented by a library that calls them (asyncio's and uvicorn's protocols)."""
    return any(ast.unparse(base).rpartition(".")[2].endswith("Protocol") for base in node.bases)
