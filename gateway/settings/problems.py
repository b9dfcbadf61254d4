"""What is wrong with penstock.yaml or with a setting, said in one sentence each, with the place.

Messages name keys and positions but never quote values: a value may be a credential in the wrong place.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gateway.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    from pydantic_core import ErrorDetails

PROBLEMS_SHOWN_MAX = 100
HINT_NAMES_MAX = 200


@dataclass(frozen=True, slots=True, order=True)
class ConfigProblem:
    """One thing that is wrong. `line` and `column` count from 1; `path` is dotted: `models.qwen-coder.pool`."""

    line: int
    column: int
    path: str
    message: str

    def render(self, source: str) -> str:
        """Return `file:line:column: path: message`, the form that editors and CI link to."""
        where = f"{self.path}: " if self.path else ""
        return f"{source}:{self.line}:{self.column}: {where}{self.message}"


class ConfigFileError(ConfigError):
    """penstock.yaml cannot be used. `problems` holds all that was found, in the order of the file.

    `secret_files` are the credential files it refers to, when it got as far as reading them: mending one may mend it.
    """

    def __init__(self, source: str, problems: Iterable[ConfigProblem], secret_files: Iterable[Path] = ()) -> None:
        self.source = source
        self.secret_files = tuple(secret_files)
        self.problems = tuple(sorted(set(problems)))
        lines = [problem.render(source) for problem in self.problems[:PROBLEMS_SHOWN_MAX]]
        hidden = len(self.problems) - len(lines)
        if hidden:
            lines.append(f"{source}: and {hidden} more")
        super().__init__("\n".join(lines))


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return `; did you mean 'x'?` for the known name closest to `name`, or nothing when none is close."""
    names = sorted(known)[:HINT_NAMES_MAX]  # comparing is slow: a hint is not worth seconds
    matches = difflib.get_close_matches(name[:100], names, n=1)
    return f"; did you mean '{matches[0]}'?" if matches else ""


def printable(name: str) -> str:
    """Return a name from the file for a message: quoted, shortened, and without control characters."""
    return repr(name if len(name) <= 80 else f"{name[:77]}...")


def listed(names: Sequence[str]) -> str:
    """Return `a, b or c`."""
    return " or ".join([", ".join(names[:-1]), names[-1]]) if len(names) > 1 else "".join(names)


_WHOLE = "must be a whole number"
_NUMBER = "must be a number"
_SENTENCES: Mapping[str, str | Callable[[Mapping[str, Any]], str]] = {
    "missing": "is required",
    "extra_forbidden": "is not known",
    "int_type": _WHOLE,
    "int_parsing": _WHOLE,
    "int_parsing_size": _WHOLE + " of reasonable size",
    "int_from_float": _WHOLE,
    "float_type": _NUMBER,
    "float_parsing": _NUMBER,
    "finite_number": "must be a finite number",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "string_type": "must be text",
    "path_type": "must be a path",
    "list_type": "must be a list",
    "tuple_type": "must be a list",
    "dict_type": "must be a mapping of keys to values",
    "model_type": "must be a mapping of keys to values",
    "model_attributes_type": "must be a mapping of keys to values",
    "greater_than_equal": lambda context: f"must be at least {context['ge']}",
    "less_than_equal": lambda context: f"must be at most {context['le']}",
    "string_too_short": "must not be empty",
    "string_too_long": lambda context: f"must have at most {context['max_length']} characters",
    "too_short": "must not be empty",
    "too_long": lambda context: f"must have at most {context['max_length']} entries",
    "literal_error": lambda context: f"must be {context['expected']}",
    "enum": lambda context: f"must be {context['expected']}",
    "value_error": lambda context: str(context["error"]),
}


def sentence(error: ErrorDetails) -> str:
    """Return what is wrong and what is expected instead, without the value that was given."""
    known = _SENTENCES.get(error["type"])
    if known is None:
        return f"is not valid ({error['type']})"
    return known if isinstance(known, str) else known(error.get("ctx", {}))
