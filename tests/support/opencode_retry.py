"""What the OpenCode binary tries again, read out of the binary itself.

OpenCode is one executable with its JavaScript inside. The bundler shortens names there but keeps those that a module
exports, and that is what is held on to: the module that exports `SessionRetry`. Where a version looks different, the
reading fails and says what it missed, instead of finding nothing and proving nothing.
"""

from __future__ import annotations

import mmap
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

MODULE = b"SessionRetry:()=>"
MODULE_BYTES_MAX = 16_384
_PATTERN = r"/(?:[^/\\\[\n]|\\.|\[(?:[^\]\\\n]|\\.)*\])+/i"
_PATTERNS = re.compile(rf"\b(\w+)=\[({_PATTERN}(?:,{_PATTERN})*)\]")
_RETRIES = re.compile(r"RETRY_MAX_RETRIES:\(\)=>(\w+)")
_LOWERED = re.compile(r"\b(\w+)=\w+\.toLowerCase\(\);")
# The AI SDK's errors, which carry the status: 408, 409, 429 and whatever is at least 500.
_STATUSES = re.compile(rb"isRetryable:[$\w]+=[$\w]+!=null&&\(((?:[$\w]+(?:===|>=)\d+(?:\|\|)?)+)\)")
_STATUS = re.compile(rb"(===|>=)(\d+)")


class ShapeChanged(Exception):
    """This version's code is not as expected: read it anew, and say here how it looks now."""


@dataclass(frozen=True)
class RetryRules:
    """What makes OpenCode try a request again.

    Attributes:
        patterns: looked for in an error's message and in its body, whatever the status.
        words: looked for, in lower case, in the message of an error event inside a stream.
        statuses: those that are tried again whatever is said.
        status_min: and every one from here on.
        retries_max: how often.
    """

    patterns: tuple[re.Pattern[str], ...]
    words: tuple[str, ...]
    statuses: frozenset[int]
    status_min: int
    retries_max: int

    def retries(self, text: str) -> bool:
        """Whether this text alone makes it try again."""
        return any(each.search(text) for each in self.patterns) or any(word in text.lower() for word in self.words)

    def alternatives(self) -> list[re.Pattern[str]]:
        """Return the patterns cut at their outermost `|`, and the words, so that each can be tested by itself."""
        parts = [part for each in self.patterns for part in _cut(each.pattern)]
        return [re.compile(part, re.IGNORECASE) for part in [*parts, *map(re.escape, self.words)]]


def retry_rules(program: Path) -> RetryRules:
    """Read the rules. Raises ShapeChanged when a part of them is not where it is expected."""
    with program.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as binary:
        starts = [match.start() for match in re.finditer(re.escape(MODULE), binary)]
        if len(starts) != 1:
            raise ShapeChanged(f"{len(starts)} modules export SessionRetry")
        module = binary[starts[0] : starts[0] + MODULE_BYTES_MAX].decode("latin-1")
        statuses, status_min = _statuses_in(binary)
    found = _one(_PATTERNS, module, "list of patterns")
    name, patterns = found[1], re.findall(_PATTERN, found[2])
    if f"{name}.some(" not in module:
        raise ShapeChanged("the patterns are not what a text is searched for")
    lowered = _one(_LOWERED, module, "text in lower case")[1]
    words = re.findall(rf'\b{lowered}\.includes\("([^"]+)"\)', module[: module.index(f"{name}.some(")])
    if not words:
        raise ShapeChanged("nothing is looked for in the text in lower case")
    retries = _one(re.compile(rf"\b{_one(_RETRIES, module, 'bound on retries')[1]}=(\d+)\b"), module, "bound")
    compiled = tuple(re.compile(each[1:-2], re.IGNORECASE) for each in patterns)
    return RetryRules(compiled, tuple(words), statuses, status_min, int(retries[1]))


def _statuses_in(binary: mmap.mmap) -> tuple[frozenset[int], int]:
    """The SDK is in there several times, once a provider that brings its own; all copies must say the same."""
    said = {frozenset(_STATUS.findall(match[1])) for match in _STATUSES.finditer(binary) if match[1]}
    if len(said) != 1:
        raise ShapeChanged(f"statuses to retry: {said or 'none found'}")
    (each,) = said
    minimums = [int(number) for sign, number in each if sign == b">="]
    if len(minimums) != 1:
        raise ShapeChanged(f"statuses to retry: {each}")
    return frozenset(int(number) for sign, number in each if sign == b"==="), minimums[0]


def _one(pattern: re.Pattern[str], text: str, what: str) -> re.Match[str]:
    found = pattern.search(text)
    if found is None:
        raise ShapeChanged(f"no {what} in the module that exports SessionRetry")
    return found


def _cut(pattern: str) -> list[str]:
    """Cut a pattern at each `|` that stands in no group and no class."""
    parts, depth, start, at = [], 0, 0, 0
    in_class = False
    while at < len(pattern):
        char = pattern[at]
        if char == "\\":
            at += 1
        elif in_class:
            in_class = char != "]"
        elif char == "[":
            in_class = True
        elif char == "|" and depth == 0:
            parts.append(pattern[start:at])
            start = at + 1
        depth += {"(": 1, ")": -1}.get(char, 0) if not in_class else 0
        at += 1
    return [*parts, pattern[start:]]
