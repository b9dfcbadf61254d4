"""penstock.yaml: what it may say, and what that becomes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from gateway.domain.config import Capabilities, EngineKind, ModelLimits, Price, Timeouts, TokenWeights
from gateway.settings import ConfigFileError, load_config, parse_config
from gateway.units import PicoUsd

if TYPE_CHECKING:
    from pathlib import Path

SMALLEST = """\
pools:
  gpu:
    engine: vllm
    endpoints: ["http://10.0.0.5:8000"]
models:
  qwen-coder:
    pool: gpu
    upstream: Qwen/Qwen3-Coder   # what the engine calls it
    aliases: [default]
    context: 262144
    output: 65536
    price: {input: "0.20", cached_input: "0.02", output: "0.80"}
"""

LARGEST = """\
pools:
  gpu:
    engine: sglang
    endpoints: ["HTTP://GPU-1:8000/", "https://gpu-2/base/v1/", "http://[::1]:8000"]
    concurrency: 64
    api_key_env: GPU_KEY
    headers: {X-Tenant: blue}
    timeouts: {connect_s: 0.5, total_s: 60}
    health: {path: /healthz, interval_s: 2}
  spare:
    engine: openai
    endpoints: [https://api.example.com/v1]
    api_key_file: spare.key
  quiet:
    engine: vllm
    endpoints: [http://quiet]
    health: {path: null}
models:
  big:
    pool: gpu
    fallbacks: [spare, quiet]
    aliases: [default, gpt-4o]
    price: {input: 1, output: 2.50, request: 0.000001}
    weights: {cached_input: 0.1, output: 2}
    limits: {requests_per_minute: 6000, tokens_per_minute: 1000000, tokens_burst: 2000000, concurrent_requests: 64}
    capabilities: {reasoning: true, tools: no}
  plain: {pool: quiet}
settings:
  idle_timeout_s: 20
"""


def test_the_smallest_form() -> None:
    config = parse_config(SMALLEST)
    gpu, qwen = config.pools["gpu"], config.models["qwen-coder"]
    assert (gpu.engine_kind, gpu.endpoints, gpu.concurrency) == (EngineKind.VLLM, ("http://10.0.0.5:8000",), None)
    assert gpu.timeouts == Timeouts(connect_s=1, first_byte_s=300, idle_s=300, total_s=1800)
    assert gpu.health.path == "/health"
    assert config.by_name == {"qwen-coder": qwen, "default": qwen}
    assert (qwen.upstream, qwen.context_tokens, qwen.output_tokens) == ("Qwen/Qwen3-Coder", 262144, 65536)
    assert qwen.price == Price(*map(PicoUsd, (200_000, 20_000, 800_000, 800_000, 0)))
    assert qwen.weights == TokenWeights(1, 1, 1)
    assert qwen.limits == ModelLimits()
    assert qwen.capabilities == Capabilities(tools=True, reasoning=False, images=False)


def test_everything_that_can_be_said(tmp_path: Path) -> None:
    (tmp_path / "spare.key").write_text("file-credential\n")
    config = parse_config(LARGEST, tmp_path / "penstock.yaml", environ={"GPU_KEY": "env-credential"})
    gpu, spare, quiet = (config.pools[name] for name in ("gpu", "spare", "quiet"))
    assert gpu.endpoints == ("http://gpu-1:8000", "https://gpu-2/base", "http://[::1]:8000")
    assert gpu.headers == {"x-tenant": "blue"}
    assert gpu.timeouts == Timeouts(connect_s=0.5, first_byte_s=300, idle_s=20, total_s=60)
    assert (gpu.health.path, gpu.health.interval_s) == ("/healthz", 2)
    assert (spare.health.path, quiet.health.path) == (None, None)
    assert gpu.api_key is not None
    assert gpu.api_key.get_secret_value() == "env-credential"
    assert spare.api_key is not None
    assert spare.api_key.get_secret_value() == "file-credential"
    assert config.secret_files == (tmp_path / "spare.key",)
    assert "credential" not in repr(config)
    big = config.by_name["gpt-4o"]
    assert big.pools == ("gpu", "spare", "quiet")
    assert big.upstream == "big"
    assert big.price == Price(*map(PicoUsd, (1_000_000, 1_000_000, 2_500_000, 2_500_000, 1_000_000)))
    assert big.weights == TokenWeights(1, 0.1, 2)
    assert big.limits == ModelLimits(
        requests_per_minute=6000, tokens_per_minute=1_000_000, tokens_burst=2_000_000, concurrent_requests=64
    )
    assert big.capabilities == Capabilities(tools=False, reasoning=True, images=False)
    assert config.models["plain"].price is None


def test_timeouts_of_the_process_win_over_those_of_the_file() -> None:
    timeouts = Timeouts(idle_s=3)
    assert (
        parse_config(SMALLEST + "settings: {idle_timeout_s: 9}\n", timeouts=timeouts).pools["gpu"].timeouts == timeouts
    )


def test_the_result_cannot_be_changed() -> None:
    config = parse_config(SMALLEST)
    with pytest.raises(TypeError):
        config.pools["x"] = config.pools["gpu"]  # type: ignore[index]  # that it cannot is what is tested
    with pytest.raises(AttributeError):
        config.pools["gpu"].name = "x"  # type: ignore[misc]  # likewise


def test_anchors_may_be_shared() -> None:
    text = "pools:\n  a: &gpu {engine: vllm, endpoints: [http://a]}\n  b: *gpu\nmodels: {m: {pool: b}}\n"
    config = parse_config(text)
    assert config.pools["a"].endpoints == config.pools["b"].endpoints


def test_reading_a_file(tmp_path: Path) -> None:
    path = tmp_path / "penstock.yaml"
    path.write_bytes(b"\xef\xbb\xbf" + SMALLEST.encode())
    assert list(load_config(path).models) == ["qwen-coder"]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (None, "1:1: cannot be read: No such file or directory"),
        (b"pools:\n  a: \xff\n", "2:1: is not UTF-8 text"),
        (b"#" * (2**20 + 1), "1:1: is larger than 1048576 bytes"),
    ],
)
def test_a_file_that_cannot_be_read(tmp_path: Path, content: bytes | None, expected: str) -> None:
    path = tmp_path / "penstock.yaml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigFileError) as refused:
        load_config(path)
    assert str(refused.value) == f"{path}:{expected}"


def test_hosts_of_media_are_names_in_lower_case() -> None:
    hosts = "media_hosts: [IMG.example.com, .cdn.example.org, '*']"
    assert parse_config(f"{SMALLEST}    {hosts}\n").models["qwen-coder"].media_hosts == (
        "img.example.com",
        ".cdn.example.org",
        "*",
    )
    assert parse_config(SMALLEST).models["qwen-coder"].media_hosts == ()


@pytest.mark.parametrize("host", ["https://img.example.com", "img.example.com/a", "*.example.com", "a..b", "", "a b"])
def test_what_is_no_host_of_media_is_refused(host: str) -> None:
    with pytest.raises(ConfigFileError, match="must be a host such as"):
        parse_config(f"{SMALLEST}    media_hosts: ['{host}']\n")
