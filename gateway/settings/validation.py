"""Checks a part of penstock.yaml against its pydantic model and puts every error at its line and column."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar, get_args

from pydantic import BaseModel, ValidationError

from gateway.settings.problems import ConfigProblem, did_you_mean, sentence
from gateway.settings.yaml_tree import Tree, joined

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pydantic_core import ErrorDetails

ENVIRONMENT_ONLY = frozenset(
    {"postgres_dsn", "postgres_direct_dsn", "redis_url", "key_peppers", "oidc_client_secret", "config"}
    | {"url", "admin_key", "ca_file"}
)
"""Settings that penstock.yaml may not hold: secrets, the file's own path, and what a caller of gateways sets."""

Model = TypeVar("Model", bound=BaseModel)
Step = str | int


def validate(model: type[Model], part: Tree, path: str = "") -> tuple[Model | None, list[ConfigProblem]]:
    """Return `part`, which stands under the dotted `path`, as a `model`; or None and all that is wrong with it."""
    try:
        return model.model_validate(part.plain()), []
    except ValidationError as error:
        errors = error.errors(include_url=False, include_input=False)
        return None, [_problem(model, part, path, details) for details in errors]


def _problem(model: type[BaseModel], part: Tree, path: str, error: ErrorDetails) -> ConfigProblem:
    """Place an error: at the key for unknown, missing and malformed keys, at the value for everything else."""
    steps = [step for step in error["loc"] if step != "[key]"]
    node = part
    for step in steps:
        path = f"{path}[{step}]" if isinstance(step, int) else joined(path, step)
        # A missing key has no node: the mapping that lacks it is the place.
        node = node.child(step) or node
    message = sentence(error)
    if error["type"] == "extra_forbidden":
        message = _unknown_key(model, steps)
    elif error["type"] != "missing" and node.value is None:
        message = "must not be empty"
    if error["type"] in {"missing", "extra_forbidden"} or "[key]" in error["loc"]:
        return ConfigProblem(node.key_line, node.key_column, path, message)
    return ConfigProblem(node.line, node.column, path, message)


def _unknown_key(model: type[BaseModel], steps: Sequence[Step]) -> str:
    name = str(steps[-1])
    known = _model_at(model, steps[:-1]).model_fields
    if name in ENVIRONMENT_ONLY and "metrics_port" in known:
        return f"can only be set in the environment, as PENSTOCK_{name.upper()}"
    return f"is not a known key{did_you_mean(name, known)}"


def _model_at(model: type[BaseModel], steps: Sequence[Step]) -> type[BaseModel]:
    """Return the model of the mapping at `steps`, through the dicts and optionals of the schema."""
    for step in steps:
        if str(step) in model.model_fields:  # a name chosen by the user stays within the model of its dict's values
            model = _model_in(model.model_fields[str(step)].annotation) or model
    return model


def _model_in(annotation: object) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for argument in get_args(annotation) if (found := _model_in(argument))), None)
