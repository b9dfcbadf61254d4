"""The configuration that OpenCode loads at each start: the models of one key, or what is wrong with the key.

OpenCode does not start when this address refuses, so a key that does not count gets a configuration, too: one whose
only model is named for the trouble. It starts, the person reads it, and the first request is answered with the reason.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gateway.edge.opencode_login import KEY_VARIABLE

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.domain.config import GatewayConfig, ModelConfig, Price
    from gateway.domain.principal import Principal

SCHEMA = "https://opencode.ai/config.json"
OUTPUT_TOKENS_ASKED = 32_000
"""OpenCode asks for at most this many, and for so many where no bound is stated."""

PICO_USD_PER_TOKEN_IN_USD_PER_MILLION = 1_000_000
_SUBSTITUTED = ("{env:", "{file:")
"""OpenCode fills these in wherever they stand, also with what a file holds: no name of ours may ask for that."""


@dataclass(frozen=True, slots=True)
class Provider:
    """What OpenCode is told of the gateway; see the settings of the same names. `url` is the public address."""

    url: str
    id: str
    name: str
    model: str | None = None
    small_model: str | None = None
    only: bool = False


@dataclass(frozen=True, slots=True)
class Trouble:
    """Why there is no model to offer. `code` becomes the id of the only model, `what` its name."""

    code: str
    what: str


def offered(config: GatewayConfig, principal: Principal) -> list[ModelConfig]:
    """Return the models of penstock.yaml that a key may use and that OpenCode can name, in the order of the file."""
    return [
        model
        for name, model in config.models.items()
        if principal.may_use(name) and not any(each in name for each in _SUBSTITUTED)
    ]


def opencode_config(
    provider: Provider, config: GatewayConfig, principal: Principal, price: Callable[[str], Price | None]
) -> dict[str, Any]:
    """Return the configuration for a key that may use at least one model.

    Args:
        provider: what OpenCode is told of the gateway.
        config: the models there are.
        principal: whose models are listed.
        price: the price of a model now, None where it has none.
    """
    models = offered(config, principal)
    by_name = {alias: model for model in models for alias in (model.name, *model.aliases)}
    first = by_name.get(provider.model or "") or next((each for each in models if each.capabilities.tools), models[0])
    small = by_name.get(provider.small_model or "", first)
    described = {model.name: _model(model, principal, price(model.name)) for model in models}
    return _document(provider, provider.name, described, first.name, small.name)


def troubled_config(provider: Provider, trouble: Trouble) -> dict[str, Any]:
    """Return a configuration that says what is wrong, and names no model that there is."""
    models = {trouble.code: {"name": trouble.what, "tool_call": True}}
    return _document(provider, f"{provider.name}: {trouble.code.replace('-', ' ')}", models, trouble.code, trouble.code)


def _document(provider: Provider, name: str, models: dict[str, Any], first: str, small: str) -> dict[str, Any]:
    alone = {"enabled_providers": [provider.id]} if provider.only else {}
    return {
        "$schema": SCHEMA,
        **alone,
        "provider": {
            provider.id: {
                "npm": "@ai-sdk/openai-compatible",
                "name": name,
                "options": {"baseURL": f"{provider.url}/v1", "apiKey": f"{{env:{KEY_VARIABLE}}}"},
                "models": models,
            }
        },
        "model": f"{provider.id}/{first}",
        # Said outright, so that titles go through the gateway, too, whatever else OpenCode is logged in to.
        "small_model": f"{provider.id}/{small}",
    }


def _model(model: ModelConfig, principal: Principal, price: Price | None) -> dict[str, Any]:
    can = model.capabilities
    described: dict[str, Any] = {
        "name": model.name,
        "tool_call": can.tools,
        "reasoning": can.reasoning,
        "attachment": can.images,
        "modalities": {"input": ["text", "image"] if can.images else ["text"], "output": ["text"]},
    }
    if limit := _limit(model, principal):
        described["limit"] = limit
    if price is not None:
        described["cost"] = {
            "input": price.input_pico_usd / PICO_USD_PER_TOKEN_IN_USD_PER_MILLION,
            "output": price.output_pico_usd / PICO_USD_PER_TOKEN_IN_USD_PER_MILLION,
            "cache_read": price.cached_input_pico_usd / PICO_USD_PER_TOKEN_IN_USD_PER_MILLION,
        }
    return described


def _limit(model: ModelConfig, principal: Principal) -> dict[str, int]:
    """Return context and output in tokens. OpenCode wants both or neither; a context of 0 is one that is not known.

    It keeps the output's room free in the context, so an output that is not stated is a quarter of it at most: else a
    small context would have no room for anything.
    """
    bounds = [each.tokens for each in principal.output_bounds if each.model in (None, model.name)]
    if model.output_tokens is not None:
        bounds.append(model.output_tokens)
    elif model.context_tokens is not None:
        bounds.append(min(OUTPUT_TOKENS_ASKED, max(1, model.context_tokens // 4)))
    return {"context": model.context_tokens or 0, "output": min(bounds)} if bounds else {}
