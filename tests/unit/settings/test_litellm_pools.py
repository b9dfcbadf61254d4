"""What penstock.yaml may say about pools of kind litellm: addresses, probes, names, and the package that they need."""

from __future__ import annotations

import sys

import pytest

from gateway.domain.config import PROVIDER_ADDRESS, GatewayConfig
from gateway.settings import ConfigFileError, parse_config

POOL = "pools:\n  cloud: {engine: litellm%s}\n"
MODEL = "models:\n  m: {pool: cloud, upstream: anthropic/claude}\n"


def parsed(text: str) -> GatewayConfig:
    """Read a file as on another machine, where litellm need not be installed."""
    return parse_config(text, with_credentials=False)


def problems(text: str, *, installed_here: bool = False) -> list[str]:
    with pytest.raises(ConfigFileError) as refused:
        parse_config(text, with_credentials=installed_here)
    return [problem.render("").lstrip(":") for problem in refused.value.problems]


def test_a_provider_needs_no_address() -> None:
    pool = parsed(POOL % "" + MODEL).pools["cloud"]
    assert pool.endpoints == (PROVIDER_ADDRESS,)
    assert pool.health.path is None


def test_addresses_are_left_as_litellm_wants_them() -> None:
    pool = parsed(POOL % ", endpoints: [http://a/v1, 'https://b/openai/v1/', http://v1]" + MODEL).pools["cloud"]
    assert pool.endpoints == ("http://a/v1", "https://b/openai/v1", "http://v1")
    text = "pools: {p: {engine: openai, endpoints: [http://a/v1, http://v1]}}\nmodels: {m: {pool: p}}\n"
    assert parsed(text).pools["p"].endpoints == ("http://a", "http://v1")


def test_other_engines_need_an_address() -> None:
    text = "pools:\n  gpu: {engine: vllm}\n  cloud: {engine: litellm, endpoints: []}\n" + MODEL
    assert problems(text) == [
        "2:3: pools.gpu.endpoints: is required",
        "3:39: pools.cloud.endpoints: must not be empty",
    ]


def test_a_provider_cannot_be_probed() -> None:
    assert problems(POOL % ", health: {path: /health}" + MODEL) == [
        "2:43: pools.cloud.health.path: litellm cannot be probed: requests alone tell how a provider is"
    ]
    assert parsed(POOL % ", health: {path: null}" + MODEL)


def test_the_provider_is_named_and_not_guessed() -> None:
    message = "must begin with litellm's name of the provider, as in anthropic/claude-sonnet-4-5"
    text = POOL % "" + "  gpu: {engine: vllm, endpoints: [http://a]}\nmodels:\n  m: {pool: gpu, fallbacks: [cloud]}\n"
    assert problems(text) == [f"5:6: models.m.upstream: {message}"]
    text = POOL % "" + "models:\n  m: {pool: cloud, upstream: claude}\n"
    assert problems(text) == [f"4:30: models.m.upstream: {message}"]
    assert parsed(POOL % "" + "models:\n  openai/gpt: {pool: cloud}\n").models["openai/gpt"].upstream == "openai/gpt"


def test_a_missing_package_is_told_at_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "litellm", None)
    expected = "pools.cloud.engine: needs litellm, which is not installed: pip install 'penstock[litellm]'"
    assert problems(POOL % "" + MODEL, installed_here=True) == [f"2:19: {expected}"]
