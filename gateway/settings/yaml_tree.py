"""YAML text into a tree that remembers where everything stood; scalars stay the text that was written.

Nothing is constructed from tags and no number is read here: `0.20` arrives as "0.20", so that prices stay exact.
Size, depth and the number of nodes after expanding anchors are bounded.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode
from yaml.reader import ReaderError

from gateway.settings.problems import ConfigFileError, ConfigProblem, printable

if TYPE_CHECKING:
    from collections.abc import Iterator

BYTES_MAX = 2**20
DEPTH_MAX = 32
NODES_MAX = 100_000
PROBLEMS_MAX = 1_000

_PREFIX = "tag:yaml.org,2002:"
_NULL, _MERGE = _PREFIX + "null", _PREFIX + "merge"
_PLAIN_TAGS = frozenset(
    _PREFIX + name for name in ("str", "null", "bool", "int", "float", "timestamp", "value", "map", "seq", "merge")
)


@dataclass(frozen=True, slots=True)
class Tree:
    """A node and where it stood, counted from 1. `key_*` is where its key stood; for list items, the item itself."""

    value: str | list[Tree] | dict[str, Tree] | None
    line: int
    column: int
    key_line: int
    key_column: int

    def child(self, key: str | int) -> Tree | None:
        """Return the value under a mapping's key or a list's index, or None where there is none."""
        if isinstance(self.value, dict):
            return self.value.get(str(key))
        if isinstance(self.value, list) and isinstance(key, int):
            return self.value[key] if 0 <= key < len(self.value) else None
        return None

    def items(self) -> Iterator[tuple[str, Tree]]:
        """Yield a mapping's keys and values; nothing for other nodes."""
        if isinstance(self.value, dict):
            yield from self.value.items()

    def texts(self) -> Iterator[Tree]:
        """Yield the text nodes among a list's items, or this node when it is text itself."""
        if isinstance(self.value, str):
            yield self
        elif isinstance(self.value, list):
            yield from (item for item in self.value if isinstance(item.value, str))

    def plain(self) -> object:
        """Return the tree as dicts, lists, strings and None."""
        if isinstance(self.value, dict):
            return {key: child.plain() for key, child in self.value.items()}
        if isinstance(self.value, str) or self.value is None:
            return self.value
        return [item.plain() for item in self.value]


def parse_tree(text: str, source: str) -> Tree:
    """Return the one document in `text`. Raises ConfigFileError when it is not YAML, or beyond the bounds."""
    try:
        root = yaml.compose(text, Loader=_BoundedLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        message = f"cannot be read as YAML: {error.problem or error.context or 'unknown form'}"
        raise ConfigFileError(source, [ConfigProblem(line, column, "", message)]) from None
    except ReaderError as error:
        before = text[: error.position]
        line, column = before.count("\n") + 1, error.position - (before.rfind("\n") + 1) + 1
        message = f"holds a control character (code {ord(text[error.position])})"
        raise ConfigFileError(source, [ConfigProblem(line, column, "", message)]) from None
    if root is None:
        raise ConfigFileError(source, [ConfigProblem(1, 1, "", "is empty: `pools` and `models` are required")])
    builder = _Builder()
    tree = builder.build(root, root, "", 1)
    if builder.problems:
        raise ConfigFileError(source, builder.problems)
    return tree


class _BoundedLoader(yaml.SafeLoader):
    """Stops at the bounds while composing: the composer recurses, and a megabyte of `[` must not end in its stack."""

    depth = 0
    nodes = 0

    def compose_node(self, parent: Node | None, index: int) -> Node | None:
        self.nodes += 1
        mark = parent.start_mark if parent else None
        if self.nodes > NODES_MAX:
            raise yaml.MarkedYAMLError(problem=f"more than {NODES_MAX} entries", problem_mark=mark)
        if self.depth >= DEPTH_MAX:
            raise yaml.MarkedYAMLError(problem=f"nested more than {DEPTH_MAX} deep", problem_mark=mark)
        self.depth += 1
        try:
            return super().compose_node(parent, index)
        finally:
            self.depth -= 1


class _Builder:
    """Turns composed nodes into trees, collecting every problem instead of stopping at the first."""

    def __init__(self) -> None:
        self.problems: list[ConfigProblem] = []
        self._nodes = 0

    def build(self, node: Node, key: Node, path: str, depth: int) -> Tree:
        """Return the tree of `node`, which stands under `key`. An anchor is built anew wherever it is used."""
        self._nodes += 1
        # Aliases make the composed nodes a graph, possibly a cyclic one: bounded here, where it becomes a tree.
        if self._nodes > NODES_MAX or depth > DEPTH_MAX:
            if self._nodes <= NODES_MAX:
                self._report(key, path, f"nested more than {DEPTH_MAX} deep")
            elif self._nodes == NODES_MAX + 1:
                self._report(key, path, f"more than {NODES_MAX} entries after expanding aliases")
            return self._tree(None, node, key)
        if node.tag not in _PLAIN_TAGS:
            self._report(node, path, "tags (!...) are not supported: write the plain value")
        if isinstance(node, MappingNode):
            return self._tree(self._mapping(node, path, depth), node, key)
        if isinstance(node, SequenceNode):
            items = (self.build(item, item, f"{path}[{index}]", depth + 1) for index, item in enumerate(node.value))
            return self._tree(list(items), node, key)
        return self._tree(None if node.tag == _NULL else str(node.value), node, key)

    def _mapping(self, node: MappingNode, path: str, depth: int) -> dict[str, Tree]:
        children: dict[str, Tree] = {}
        for key, value in node.value:
            if not isinstance(key, ScalarNode):
                self._report(key, path, "keys must be plain text")
                continue
            name = str(key.value)
            child_path = joined(path, name)
            if key.tag == _MERGE:
                self._report(key, path, "merge keys (<<) are not supported: write the keys out")
                continue
            if name in children:
                self._report(key, child_path, f"is given twice; the first is on line {children[name].key_line}")
                continue
            children[name] = self.build(value, key, child_path, depth + 1)
        return children

    def _tree(self, value: str | list[Tree] | dict[str, Tree] | None, node: Node, key: Node) -> Tree:
        at, key_at = node.start_mark, key.start_mark
        return Tree(value, at.line + 1, at.column + 1, key_at.line + 1, key_at.column + 1)

    def _report(self, node: Node, path: str, message: str) -> None:
        if len(self.problems) < PROBLEMS_MAX:
            mark = node.start_mark
            self.problems.append(ConfigProblem(mark.line + 1, mark.column + 1, path, message))


def joined(path: str, name: str) -> str:
    """Return the dotted path of `name` under `path`; names that are not plain are quoted."""
    part = name if name and name.isprintable() and len(name) <= 80 else printable(name)
    return f"{path}.{part}" if path else part
