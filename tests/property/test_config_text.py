"""Whatever penstock.yaml holds: it is a configuration or a list of problems inside the file, never another error."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.settings import ConfigFileError, ConfigProblem, parse_config

GOOD = """\
pools:
  gpu: &gpu
    engine: vllm
    endpoints: ["http://10.0.0.5:8000"]
    headers: {x-a: b}
    timeouts: {idle_s: 3}
models:
  m: {pool: gpu, aliases: [d], context: 10, price: {input: "1", output: "2"}}
settings: {port: 1}
"""
FRAGMENTS = [
    "gpu",
    "pools",
    "models",
    ":",
    "- ",
    "\n",
    "  ",
    "{",
    "}",
    "[",
    "]",
    "*gpu",
    "&gpu ",
    "!x ",
    '"',
    "1e9",
    "\t",
]
KEYS = ["gpu", "m", "pool", "price", "input", "endpoints", "headers", "timeouts", "aliases", "port"]
LINE_BREAKS = "\n\r\x85\u2028\u2029"

flow_values = st.recursive(
    st.sampled_from(["x", "1", "null", "''"]),
    lambda inner: (
        st.lists(inner, max_size=4).map(lambda items: f"[{', '.join(items)}]")
        | st.dictionaries(st.sampled_from(KEYS), inner, max_size=4).map(
            lambda items: "{" + ", ".join(f"{key}: {item}" for key, item in items.items()) + "}"
        )
    ),
)


def problems(text: str) -> tuple[ConfigProblem, ...]:
    """Return what is wrong with `text`; nothing when it is a configuration."""
    try:
        parse_config(text, environ={})
    except ConfigFileError as error:
        return error.problems or (ConfigProblem(0, 0, "", "refused without a problem"),)
    return ()


def check(text: str) -> None:
    """Parse `text`; each problem must lie inside it and say something."""
    lines = 1 + sum(text.count(line_break) for line_break in LINE_BREAKS)
    for problem in problems(text):
        assert 1 <= problem.line <= lines
        assert problem.column >= 1
        assert problem.message
        assert "\n" not in problem.path


@given(st.text())
def test_any_text(text: str) -> None:
    check(text)


@given(st.lists(st.sampled_from(FRAGMENTS), max_size=40).map("".join))
def test_any_arrangement_of_yaml(text: str) -> None:
    check(text)


@given(
    start=st.integers(0, len(GOOD)), length=st.integers(0, 30), insert=st.lists(st.sampled_from(FRAGMENTS), max_size=3)
)
def test_any_edit_of_a_good_file(start: int, length: int, insert: list[str]) -> None:
    check(GOOD[:start] + "".join(insert) + GOOD[start + length :])


@pytest.mark.parametrize("section", ["pools", "models", "settings"])
@given(value=flow_values)
def test_any_structure_in_any_section(section: str, value: str) -> None:
    check(f"{section}: {value}\n")
