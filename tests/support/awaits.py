"""Where a request may be suspended, read from the gateway's own code, and where a coroutine is suspended now.

The places are those of the functions that a root can reach. Names are followed, not types: a name that is mentioned
leads to every function called so, in its own class if there is one there. That finds too much rather than too little.
"""

from __future__ import annotations

import ast
from collections import Counter
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from tests.support.source import REPOSITORY, modules

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from types import CodeType, FrameType

    from tests.support.source import Function, Module

Suspending = ast.Await | ast.AsyncFor | ast.AsyncWith
_PROTOCOL_OF = {ast.AsyncFor: ("__aiter__", "__anext__"), ast.AsyncWith: ("__aenter__", "__aexit__")}


@dataclass(frozen=True)
class Place:
    """One `await`, `async for` or `async with`; `function` is `module.py Class.function`, `text` the source."""

    function: str
    text: str
    path: str
    span: tuple[int, int, int, int]

    def __str__(self) -> str:
        return f"{self.function}: {self.text}"


class _Known:
    """A function of the gateway: its node, its class where it has one, what it suspends at, the names it mentions."""

    def __init__(self, module: Module, owner: str | None, node: Function, inner: str = "") -> None:
        self.owner = owner
        self.name = node.name
        self.label = f"{module.path.relative_to('gateway')} {f'{owner}.' if owner else ''}{inner}{node.name}"
        self.node = node
        self.path = str(REPOSITORY / module.path)

    def places(self) -> Iterator[Place]:
        """Yield where it may suspend, not counting functions inside it. Equal texts are numbered."""
        seen: Counter[str] = Counter()
        for node in _own(self.node):
            if isinstance(node, Suspending):
                text = _text(node)
                seen[text] += 1
                text = f"{text} ({seen[text]})" if seen[text] > 1 else text
                assert node.end_lineno is not None
                assert node.end_col_offset is not None
                span = (node.lineno, node.col_offset, node.end_lineno, node.end_col_offset)
                yield Place(self.label, text, self.path, span)

    def mentions(self) -> Iterator[tuple[str, bool]]:
        """Yield the names that it mentions, and whether each is one of `self`'s; also those in functions inside it."""
        for node in ast.walk(self.node):
            if isinstance(node, ast.Attribute):
                yield node.attr, isinstance(node.value, ast.Name) and node.value.id == "self"
            elif isinstance(node, ast.Name):
                yield node.id, False
            elif isinstance(node, ast.AsyncFor | ast.AsyncWith):
                yield from ((name, False) for name in _PROTOCOL_OF[type(node)])
            assert not isinstance(node, ast.comprehension) or not node.is_async, "asynchronous comprehensions hide"


def _own(function: Function) -> Iterator[ast.AST]:
    """Yield the nodes of a function in the order of the source, without those of functions inside it."""
    waiting: list[ast.AST] = [*reversed(function.body)]
    while waiting:
        node = waiting.pop()
        yield node
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            waiting += reversed(list(ast.iter_child_nodes(node)))


def _text(node: Suspending) -> str:
    if isinstance(node, ast.Await):
        return " ".join(ast.unparse(node).split())
    if isinstance(node, ast.AsyncFor):
        return f"async for {ast.unparse(node.target)} in {ast.unparse(node.iter)}"
    return f"async with {', '.join(ast.unparse(item) for item in node.items)}"


def _functions(module: Module) -> Iterator[_Known]:
    def below(body: Collection[ast.AST], owner: str | None, inner: str) -> Iterator[_Known]:
        for node in body:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield _Known(module, owner, node, inner)
                yield from below(list(ast.walk(node))[1:], owner, f"{inner}{node.name}.")
            elif isinstance(node, ast.ClassDef):
                yield from below(node.body, node.name, "")

    yield from below(module.tree.body, None, "")


@cache
def _known(packages: frozenset[str]) -> tuple[_Known, ...]:
    return tuple(known for module in modules("gateway") if module.package in packages for known in _functions(module))


def awaiting(packages: frozenset[str], call: str) -> list[str]:
    """Return the functions, as `Place.function`, that await something whose source contains `call`."""
    return sorted({place.function for known in _known(packages) for place in known.places() if call in place.text})


def reachable(packages: frozenset[str], roots: Collection[str], beyond: Collection[str]) -> list[Place]:
    """Return every place that a root can reach within these packages of the gateway.

    Args:
        packages: folders, or modules, right below `gateway`.
        roots: functions to start from, as `Place.function`.
        beyond: functions that are not entered, likewise, or whole modules. Raises AssertionError when one is not
            reached at all.
    """
    by_name: dict[str, list[_Known]] = {}
    for known in _known(packages):
        by_name.setdefault(known.name, []).append(known)
        if known.name == "__init__" and known.owner:
            by_name.setdefault(known.owner, []).append(known)
    reached: dict[str, _Known] = {}
    met: set[str] = set()
    waiting = [known for known in _known(packages) if known.label in roots]
    while waiting:
        known = waiting.pop()
        outside = {known.label, known.label.split()[0]} & set(beyond)
        met |= outside
        if known.label in reached or outside:
            continue
        reached[known.label] = known
        for name, of_self in known.mentions():
            named = by_name.get(name, [])
            own = [each for each in named if of_self and each.owner == known.owner]
            waiting += own or named
    assert met >= set(beyond), f"no longer there, or no longer reached: {set(beyond) - met}"
    return sorted((place for known in reached.values() for place in known.places()), key=lambda p: (p.path, p.span))


class Where:
    """Tells at which of some places a coroutine is suspended."""

    def __init__(self, places: Collection[Place]) -> None:
        self._by_path: dict[str, list[Place]] = {}
        for place in places:
            self._by_path.setdefault(place.path, []).append(place)
        self._found: dict[tuple[CodeType, int], Place | None] = {}

    def suspended(self, coroutine: object) -> list[tuple[CodeType, Place | None, int]]:
        """Return the frames it is suspended in, outermost first: code, place (None: not one of them), instruction."""
        frames = []
        while (frame := _frame(coroutine)) is not None:
            frames.append((frame.f_code, self._place(frame.f_code, frame.f_lasti), frame.f_lasti))
            coroutine = getattr(coroutine, "cr_await", None) or getattr(coroutine, "gi_yieldfrom", None)
        return frames

    def _place(self, code: CodeType, instruction: int) -> Place | None:
        key = (code, instruction)
        if key not in self._found:
            self._found[key] = self._look(code, instruction)
        return self._found[key]

    def _look(self, code: CodeType, instruction: int) -> Place | None:
        places = self._by_path.get(code.co_filename)
        if not places:
            return None
        line, _, column, _ = list(code.co_positions())[instruction // 2]
        if line is None or column is None:
            return None
        around = [place for place in places if place.span[:2] <= (line, column) < place.span[2:]]
        # The innermost one: what is awaited lies within the statement that it is a part of.
        return max(around, key=lambda place: place.span[:2], default=None)


def _frame(coroutine: Any) -> FrameType | None:
    frame: FrameType | None = getattr(coroutine, "cr_frame", None) or getattr(coroutine, "gi_frame", None)
    return frame
