"""The repository's own text, parsed once: what the tests of its style look at."""

from __future__ import annotations

import ast
import io
import tokenize
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

REPOSITORY = Path(__file__).parents[2]
PYTHON_FOLDERS = ("gateway", "tests", "alembic", "bench")
GENERATED = frozenset({"__pycache__", "build", "dist", "htmlcov", "node_modules", "results"})
WRITTEN_BUT_HIDDEN = frozenset({".ci", ".gitignore"})
BINARY_SUFFIXES = frozenset({".png", ".gif", ".ico", ".woff2"})

Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Module:
    """One Python file: its path below the repository, its text, its syntax tree."""

    path: Path

    def __str__(self) -> str:
        return str(self.path)

    @property
    def package(self) -> str:
        """The first folder below `gateway`, or the module's own name there: `edge`, `app`."""
        return self.path.parts[1].removesuffix(".py")

    @cached_property
    def text(self) -> str:
        """The whole text."""
        return (REPOSITORY / self.path).read_text(encoding="utf-8")

    @cached_property
    def lines(self) -> list[str]:
        """The lines."""
        return self.text.splitlines()

    @cached_property
    def tree(self) -> ast.Module:
        """The syntax tree."""
        return ast.parse(self.text, str(self.path))

    def functions(self) -> Iterator[Function]:
        """Yield every function and method, also those inside others."""
        return (node for node in ast.walk(self.tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))

    def imports(self) -> Iterator[tuple[int, str]]:
        """Yield line and dotted name of everything that is imported, in functions and for types alone too."""
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                yield from ((node.lineno, name.name) for name in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module:
                yield from ((node.lineno, f"{node.module}.{name.name}") for name in node.names)

    def comments(self) -> Iterator[tuple[int, str]]:
        """Yield line and text of every comment, the number sign included; what strings hold is none."""
        for token in tokenize.generate_tokens(io.StringIO(self.text).readline):
            if token.type == tokenize.COMMENT:
                yield token.start[0], token.string


@cache
def modules(*folders: str) -> tuple[Module, ...]:
    """Return the Python files below these folders of the repository, by default all."""
    return tuple(
        Module(path) for path in files() if path.suffix == ".py" and path.parts[0] in (folders or PYTHON_FOLDERS)
    )


@cache
def files() -> tuple[Path, ...]:
    """Return every text file of the repository that people wrote, relative to it."""
    return tuple(path.relative_to(REPOSITORY) for path in _below(REPOSITORY) if path.suffix not in BINARY_SUFFIXES)


def _below(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        if path.name in GENERATED or (path.name.startswith(".") and path.name not in WRITTEN_BUT_HIDDEN):
            continue
        if path.is_dir():
            yield from _below(path)
        else:
            yield path


def fail_for(offences: Iterable[object]) -> None:
    """Fail with every offence on a line of its own; nothing happens when there is none."""
    lines = [str(offence) for offence in offences]
    assert not lines, "\n" + "\n".join(lines)
