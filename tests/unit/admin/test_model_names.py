"""Names of models are those of penstock.yaml: what else is given is told with what was meant."""

from __future__ import annotations

import pytest

from gateway.admin.model_names import NAMES_TOLD_MAX, check_models
from gateway.domain.config import GatewayConfig, ModelConfig
from gateway.errors import InvalidRequest


def configured(*models: ModelConfig) -> GatewayConfig:
    return GatewayConfig.of([], models)


def refused(name: str, config: GatewayConfig) -> str:
    with pytest.raises(InvalidRequest) as raised:
        check_models(["coder", name], config, param="models", anyway="--anyway")
    assert raised.value.param == "models"
    return str(raised.value)


def test_an_alias_is_told_with_its_model_and_an_unknown_name_with_those_that_are_known() -> None:
    config = configured(
        ModelConfig("coder", "gpu", "Coder", aliases=("default",)), ModelConfig("small", "gpu", "Small")
    )
    check_models(["coder", "small"], config, param="models", anyway="--anyway")
    assert refused("default", config) == "'default' is an alias of 'coder': name that"
    known = "penstock.yaml has no model 'codre', only 'coder', 'small'; --anyway takes it all the same"
    assert refused("codre", config) == known


def test_what_is_told_is_bounded() -> None:
    names = ["coder", *(f"model-{number}" for number in range(NAMES_TOLD_MAX + 4))]
    said = refused("x" * 1000, configured(*(ModelConfig(name, "gpu", name) for name in names)))
    assert f"'model-{NAMES_TOLD_MAX - 2}' and 5 more; --anyway" in said
    assert len(said) < 1000
