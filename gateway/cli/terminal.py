"""Asks a person who may be there although standard input and output belong to a program: on the terminal itself."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

ATTEMPTS_MAX: Final = 3
_INPUT: Final = "CONIN$" if sys.platform == "win32" else "/dev/tty"
_OUTPUT: Final = "CONOUT$" if sys.platform == "win32" else "/dev/tty"


def choose(what: str, names: Sequence[str]) -> str | None:
    """Return the one of `names` that a person picks by number or name; None where there is no terminal, or no pick."""
    with _terminal() as terminal:
        if terminal is None:
            return None
        read, write = terminal
        for number, name in enumerate(names, 1):
            write.write(f"  {number}  {name}\n")
        for _ in range(ATTEMPTS_MAX):
            write.write(f"{what} (1 to {len(names)}): ")
            write.flush()
            answer = read.readline().strip()
            if answer in names:
                return answer
            if answer.isascii() and answer.isdigit() and len(answer) < 5 and 1 <= int(answer) <= len(names):
                return names[int(answer) - 1]
        return None


@contextmanager
def _terminal() -> Iterator[tuple[IO[str], IO[str]] | None]:
    try:
        read = open(_INPUT, encoding="utf-8", errors="replace")  # noqa: PTH123, SIM115 - a device, closed below
    except OSError:
        yield None
        return
    with read:
        try:
            write = open(_OUTPUT, "w", encoding="utf-8", errors="replace")  # noqa: PTH123, SIM115 - as above
        except OSError:
            yield None
            return
        with write:
            yield read, write
