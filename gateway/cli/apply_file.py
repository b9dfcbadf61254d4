"""Reads the file of `penstock apply`, and puts what is wrong with it, or refused of it, at its line and column."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from gateway.admin.apply_document import DOCUMENT_BYTES_MAX, Document
from gateway.errors import ConfigError
from gateway.settings.problems import ConfigFileError, ConfigProblem
from gateway.settings.validation import validate
from gateway.settings.yaml_tree import Tree, joined, parse_tree

if TYPE_CHECKING:
    from pathlib import Path

    from gateway.errors import GatewayError

STANDARD_INPUT: Final = "-"


@dataclass(frozen=True, slots=True)
class Declared:
    """What a file declares, as it is sent, and where everything stood. `source` is how messages call the file."""

    document: dict[str, Any]
    source: str
    tree: Tree

    def placed(self, error: GatewayError) -> ConfigFileError | None:
        """Return a refusal at the line that it is about; None when it names no place of the file."""
        if error.param is None or not error.param.startswith("/"):
            return None
        node, path = self.tree, ""
        for step in error.param[1:].split("/"):
            name = step.replace("~1", "/").replace("~0", "~")
            child = node.child(int(name)) if isinstance(node.value, list) and name.isdigit() else node.child(name)
            if child is None:
                break
            path = f"{path}[{name}]" if isinstance(node.value, list) else joined(path, name)
            node = child
        placed = ConfigFileError(self.source, [ConfigProblem(node.key_line, node.key_column, path, error.message)])
        for note in getattr(error, "__notes__", ()):
            placed.add_note(note)
        return placed


def read_declared(file: Path) -> Declared:
    """Return what a file declares, checked as far as no gateway is needed.

    Raises ConfigFileError with every problem at its line and column, ConfigError for a file that cannot be read.
    """
    source = "standard input" if str(file) == STANDARD_INPUT else str(file)
    text = _text(file, source)
    if not any(line.strip() and not line.lstrip().startswith("#") for line in text.splitlines()):
        raise ConfigFileError(source, [ConfigProblem(1, 1, "", "is empty: it may have `organizations` and `prices`")])
    tree = parse_tree(text, source)
    _, problems = validate(Document, tree)
    if problems:
        raise ConfigFileError(source, problems)
    plain = tree.plain()
    assert isinstance(plain, dict), "a document is a mapping"
    return Declared(plain, source, tree)


def _text(file: Path, source: str) -> str:
    try:
        if str(file) == STANDARD_INPUT:
            content = sys.stdin.buffer.read(DOCUMENT_BYTES_MAX + 1)
        else:
            with file.open("rb") as opened:
                content = opened.read(DOCUMENT_BYTES_MAX + 1)
    except OSError as error:
        raise ConfigError(f"{source} cannot be read: {error.strerror}") from None
    if len(content) > DOCUMENT_BYTES_MAX:
        raise ConfigError(f"{source} is larger than {DOCUMENT_BYTES_MAX:,} bytes: apply it in parts")
    try:
        return content.decode()
    except UnicodeDecodeError:
        raise ConfigError(f"{source} is not UTF-8 text") from None
