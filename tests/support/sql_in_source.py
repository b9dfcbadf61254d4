"""The SQL that stands in a module, with what its f-strings take in of constants put in."""

from __future__ import annotations

import ast
import importlib
import itertools
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from tests.support.source import Module

VERB: Final = re.compile(r"\s*(?:SELECT|INSERT INTO|UPDATE|DELETE FROM|MERGE INTO|WITH|TRUNCATE|COPY)\s")
UNKNOWN: Final = "\N{WHITE QUESTION MARK ORNAMENT}"


@dataclass(frozen=True)
class Statement:
    """One text of a statement; `unresolved` is what of it is known at run time alone."""

    line: int
    end_line: int
    text: str
    unresolved: str | None


def statements(module: Module) -> Iterator[Statement]:
    """Yield what looks like a statement: where an f-string takes one of two, both."""
    name = str(module.path.with_suffix("")).replace("/", ".").removesuffix(".__init__")
    yield from statements_of(module.tree, vars(importlib.import_module(name)))


def statements_of(tree: ast.Module, constants: Mapping[str, Any]) -> Iterator[Statement]:
    """Yield the statements of a syntax tree in which these names are known."""
    inside = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in ast.walk(node)}
    inside -= {id(node) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr)}
    known = _Known(constants, dict(_locals(tree)))
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            for text, unresolved in _texts(node, known):
                if VERB.match(text):
                    yield Statement(node.lineno, node.end_lineno or node.lineno, text, unresolved)
        elif isinstance(node, ast.Constant) and id(node) not in inside and isinstance(node.value, str):
            text = node.value
            if VERB.match(text):
                yield Statement(node.lineno, node.end_lineno or node.lineno, text, None)


@dataclass(frozen=True)
class _Known:
    """What a name stands for: constants of the module, and locals by the f-strings that they are near to."""

    constants: Mapping[str, Any]
    locals: Mapping[int, Mapping[str, list[ast.expr]]]


def _locals(tree: ast.Module) -> Iterator[tuple[int, dict[str, list[ast.expr]]]]:
    """Yield, for every f-string in a function, what that function's names are set to: a value, or one of a loop's."""
    for function in ast.walk(tree):
        if not isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        names: dict[str, list[ast.expr]] = {}
        for node in ast.walk(function):
            if isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
                names.setdefault(node.targets[0].id, []).append(node.value)
            elif isinstance(node, ast.For) and isinstance(node.target, ast.Name) and isinstance(node.iter, ast.Tuple):
                names.setdefault(node.target.id, []).extend(node.iter.elts)
        yield from ((id(node), names) for node in ast.walk(function) if isinstance(node, ast.JoinedStr))


def _texts(node: ast.JoinedStr, known: _Known) -> Iterator[tuple[str, str | None]]:
    names = known.locals.get(id(node), {})
    parts = [_alternatives(part, names, known) for part in node.values]
    for chosen in itertools.product(*parts):
        unresolved = [why for _, why in chosen if why is not None]
        yield "".join(text for text, _ in chosen), unresolved[0] if unresolved else None


def _alternatives(part: ast.expr, names: Mapping[str, list[ast.expr]], known: _Known) -> list[tuple[str, str | None]]:
    """Return what a part of an f-string may be, and why it is not known if it is not."""
    value = part.value if isinstance(part, ast.FormattedValue) else part
    if isinstance(value, ast.IfExp):
        return _alternatives(value.body, names, known) + _alternatives(value.orelse, names, known)
    if isinstance(value, ast.JoinedStr):
        return list(_texts(value, known))
    if isinstance(value, ast.Name) and value.id in names:
        return [each for one in names[value.id] for each in _alternatives(one, {}, known)]
    found = _evaluated(value, known)
    if found is None and isinstance(value, ast.Subscript):
        of = _evaluated(value.value, known)
        if isinstance(of, dict):
            return [(str(each), None) for each in of.values()]
    return [(UNKNOWN, ast.unparse(value))] if found is None else [(str(found), None)]


def _evaluated(value: ast.expr, known: _Known) -> object | None:
    try:
        code = compile(ast.fix_missing_locations(ast.Expression(value)), "<constant>", "eval")
        value_of: object = eval(code, dict(known.constants))  # noqa: S307 - the repository's own constants
    except Exception:  # whatever it is, it is no constant
        return None
    return value_of
