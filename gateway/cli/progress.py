"""What people see while a command takes long: one line on standard error that is replaced, and nothing for scripts."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeAlias

from rich.console import Console
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

Tell: TypeAlias = "Callable[[str], None]"


@contextmanager
def progress(first: str = "reading the ledger") -> Iterator[Tell]:
    """Yield what shows a line until the next one, `first` before them; where standard error is no terminal, nothing."""
    if not sys.stderr.isatty():
        yield lambda _line: None
        return
    with Console(stderr=True).status(Text(first)) as status:
        yield lambda line: status.update(Text(line))
