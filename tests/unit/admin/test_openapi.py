"""The OpenAPI document of the control plane: each operation says what it does and shows it, and what it shows is so."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import jsonschema_rs
import pytest

from gateway.admin.api import build_admin_app
from gateway.admin.routes.context import Control
from gateway.authenticate.key import Peppers

if TYPE_CHECKING:
    from collections.abc import Iterator

PASSED_ON = {"sign_in_token", "sign_in_device"}
"""What the identity provider answers, in its own words."""


def no_pool() -> Any:
    raise AssertionError("the document needs no database")


DOCUMENT: dict[str, Any] = build_admin_app(Control(no_pool, Peppers({})), "1.0").openapi()


def operations() -> Iterator[tuple[str, dict[str, Any]]]:
    for path in DOCUMENT["paths"].values():
        for operation in path.values():
            yield operation["operationId"], operation


OPERATIONS = dict(operations())


def shown(operation: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield where JSON is asked for or answered, with its schema and example."""
    if "requestBody" in operation:
        yield "body", operation["requestBody"]["content"]["application/json"]
    for status, answer in operation["responses"].items():
        if status.startswith("2") and "application/json" in answer.get("content", {}):
            yield status, answer["content"]["application/json"]


@pytest.mark.parametrize("name", OPERATIONS)
def test_each_operation_says_what_it_does(name: str) -> None:
    operation = OPERATIONS[name]
    assert operation["summary"] in operation["description"]
    assert " " in operation["summary"], "more than the name of a function"
    assert operation["tags"]


@pytest.mark.parametrize("name", OPERATIONS)
def test_each_example_fits_its_schema(name: str) -> None:
    parts = dict(shown(OPERATIONS[name]))
    assert name in PASSED_ON or any(status.startswith("2") for status in parts), "it shows an answer"
    for where, part in parts.items():
        schema = part["schema"] | {"components": DOCUMENT["components"]}
        errors = [str(each) for each in jsonschema_rs.validator_for(schema).iter_errors(part["example"])]
        assert not errors, f"{where}: {errors[0]}"
        assert part["example"] not in ({}, []), f"{where} shows nothing"
