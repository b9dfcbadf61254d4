"""A suppressed check is a small debt: it names what it suppresses and says why, on its own line."""

from __future__ import annotations

import re
import tomllib

from tests.support.source import REPOSITORY, fail_for, modules

REASON_CHARS_MIN = 6
SUPPRESSION = re.compile(
    r"\bnoqa\b|\btype:\s*ignore|\bpragma:|\bnosec\b|^#\s*(?:mypy|ruff|pylint|pyright):", re.IGNORECASE
)
EXPLAINED = re.compile(
    r"# (?:noqa: [A-Z]+\d+(?:, ?[A-Z]+\d+)*|type: ignore\[[a-z-]+(?:, ?[a-z-]+)*\]|ruff: noqa: [A-Z]+\d+)"
    r"\s*(?:-|#)\s*(?P<reason>\S.*)"
)


def test_every_suppression_names_its_check_and_its_reason() -> None:
    fail_for(
        f"{module}:{line} {comment}"
        for module in modules()
        for line, comment in module.comments()
        if SUPPRESSION.search(comment) and not _explained(comment)
    )


def test_every_ignored_rule_has_its_reason_beside_it() -> None:
    text = (REPOSITORY / "pyproject.toml").read_text()
    ignored = tomllib.loads(text)["tool"]["ruff"]["lint"]["ignore"]
    assert ignored
    fail_for(rule for rule in ignored if not re.search(rf'"{rule}", +# \S+', text))


def _explained(comment: str) -> bool:
    found = EXPLAINED.match(comment)
    return found is not None and len(found["reason"]) >= REASON_CHARS_MIN
