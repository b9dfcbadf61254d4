"""What OpenCode is told of each model, and that nothing is told that it would fill in or stumble over."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING
from uuid import UUID

import pytest

from gateway.domain.config import Capabilities, EngineKind, GatewayConfig, ModelConfig, PoolConfig, Price
from gateway.domain.principal import OutputBound, Principal
from gateway.edge.opencode_config import Provider, Trouble, offered, opencode_config, troubled_config
from gateway.units import PicoUsd

if TYPE_CHECKING:
    from collections.abc import Sequence

ACME = Provider(url="https://gw.example.com", id="acme", name="Acme")
PRICE = Price(PicoUsd(123_457), PicoUsd(20_000), PicoUsd(800_000), PicoUsd(900_000))


def model(name: str, context: int | None = None, output: int | None = None, **more: object) -> ModelConfig:
    made: dict[str, object] = {"name": name, "pool": "gpu", "upstream": name}
    return ModelConfig(**made | {"context_tokens": context, "output_tokens": output} | more)  # type: ignore[arg-type] # a test's own fields


def config_of(models: Sequence[ModelConfig]) -> GatewayConfig:
    return GatewayConfig.of([PoolConfig("gpu", EngineKind.VLLM, ("http://10.0.0.5:8000",))], models)


def principal(models: set[str] | None = None, bounds: tuple[OutputBound, ...] = ()) -> Principal:
    some = UUID(int=1)
    allowed = None if models is None else frozenset(models)
    return Principal(some, "org", some, "team", None, None, some, "k", output_bounds=bounds, models_allowed=allowed)


@pytest.mark.parametrize(
    ("context", "output", "bound", "limit"),
    [
        (262_144, 65_536, None, {"context": 262_144, "output": 65_536}),
        (262_144, None, None, {"context": 262_144, "output": 32_000}),
        (8192, None, None, {"context": 8192, "output": 2048}),
        (None, 4096, None, {"context": 0, "output": 4096}),
        (8192, 4096, 1000, {"context": 8192, "output": 1000}),
        (None, None, 1000, {"context": 0, "output": 1000}),
        (None, None, None, None),
    ],
)
def test_sizes_are_both_told_or_neither(
    context: int | None, output: int | None, bound: int | None, limit: dict[str, int] | None
) -> None:
    bounds = (OutputBound(5, model="another"), *([] if bound is None else [OutputBound(bound)]))
    made = opencode_config(ACME, config_of([model("m", context, output)]), principal(bounds=bounds), lambda _: None)
    assert made["provider"]["acme"]["models"]["m"].get("limit") == limit
    assert "cost" not in made["provider"]["acme"]["models"]["m"]


def test_prices_are_in_dollars_per_million() -> None:
    made = opencode_config(ACME, config_of([model("m")]), principal(), {"m": PRICE}.get)
    assert made["provider"]["acme"]["models"]["m"]["cost"] == {"input": 0.123457, "output": 0.8, "cache_read": 0.02}


def test_it_begins_with_a_model_that_has_tools_unless_told_otherwise() -> None:
    embeddings, coder = (
        model("embeddings", capabilities=Capabilities(tools=False)),
        model("coder", aliases=("default",)),
    )
    config, everything = config_of([embeddings, coder, model("other")]), principal()

    def chosen(who: Principal, model: str | None = None, small_model: str | None = None) -> tuple[str, str]:
        provider = replace(ACME, model=model, small_model=small_model)
        made = opencode_config(provider, config, who, lambda _: None)
        return made["model"], made["small_model"]

    assert chosen(everything) == ("acme/coder", "acme/coder")
    assert chosen(everything, model="other", small_model="default") == ("acme/other", "acme/coder")
    assert chosen(principal({"other"}), model="coder", small_model="gone") == ("acme/other", "acme/other")
    assert chosen(principal({"embeddings"})) == ("acme/embeddings", "acme/embeddings")


def test_nothing_is_offered_that_opencode_would_fill_in() -> None:
    config = config_of([model("{env:HOME}"), model("{file:/etc/passwd}"), model("a{b}")])
    assert [each.name for each in offered(config, principal())] == ["a{b}"]
    assert offered(config, principal({"another"})) == []


def test_the_gateway_alone_is_offered_where_a_setting_says_so() -> None:
    alone = replace(ACME, only=True)
    made = opencode_config(alone, config_of([model("coder")]), principal(), lambda _: None)
    troubled = troubled_config(alone, Trouble("no-key", "no key was sent"))
    assert made["enabled_providers"] == troubled["enabled_providers"] == ["acme"]
    assert "enabled_providers" not in troubled_config(ACME, Trouble("no-key", "no key was sent"))


def test_trouble_is_the_only_model() -> None:
    made = troubled_config(ACME, Trouble("no-key", "no key was sent"))
    assert (made["model"], made["small_model"]) == ("acme/no-key", "acme/no-key")
    (provider,) = made["provider"].values()
    assert provider["name"] == "Acme: no key"
    assert provider["options"] == {"baseURL": "https://gw.example.com/v1", "apiKey": "{env:PENSTOCK_KEY}"}
    assert {name: each["name"] for name, each in provider["models"].items()} == {"no-key": "no key was sent"}
