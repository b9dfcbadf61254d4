"""penstock.yaml: every mistake is told at its place, all at once, and without quoting what may be a credential."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from gateway.settings import ConfigFileError, parse_config

if TYPE_CHECKING:
    from pathlib import Path


def problems(text: str) -> list[str]:
    """Return the problems of `text` as `line:column: path: message`."""
    with pytest.raises(ConfigFileError) as refused:
        parse_config(text, "f", environ={})
    return [line.removeprefix("f:") for line in str(refused.value).splitlines()]


def pool(*extra: str) -> str:
    """Return a good file whose pool also has the lines `extra`, from line 4 on."""
    body = "".join(f"    {line}\n" for line in extra)
    return f"pools:\n  gpu:\n    engine: vllm\n{body}    endpoints: [http://a]\nmodels: {{m: {{pool: gpu}}}}\n"


def endpoint(url: str) -> str:
    """Return a good file with one engine at `url`, which stands in line 1, column 41."""
    return f'pools: {{gpu: {{engine: vllm, endpoints: ["{url}"]}}}}\nmodels: {{m: {{pool: gpu}}}}\n'


def model(extra: str) -> str:
    """Return a good file whose model has `extra` on line 5."""
    return f"pools: {{gpu: {{engine: vllm, endpoints: [http://a]}}}}\nmodels:\n  m:\n    pool: gpu\n    {extra}\n"


def test_all_mistakes_are_told_at_once_in_the_order_of_the_file() -> None:
    assert problems(
        """\
pools:
  gpu:
    engin: vllm
    endpoints: [http://a/v1, ftp://b]
    concurrency: many
  other:
    engine: vlm
    endpoints:
models:
  m:
    pool: gp
    context: 100
    output: 200
    aliases: [x, n]
    price: {input: "1", outptu: 3}
  n:
    pool: other
    fallbacks: [other]
settings: {prot: 1}
"""
    ) == [
        "2:3: pools.gpu.engine: is required",
        "3:5: pools.gpu.engin: is not a known key; did you mean 'engine'?",
        "4:30: pools.gpu.endpoints[1]: must be an http:// or https:// address such as http://10.0.0.5:8000",
        "5:18: pools.gpu.concurrency: must be a whole number",
        "7:13: pools.other.engine: must be 'vllm', 'sglang', 'tgi', 'llamacpp', 'ollama', 'openai' or 'litellm'",
        "8:15: pools.other.endpoints: must not be empty",
        "11:11: models.m.pool: there is no pool 'gp'; did you mean 'gpu'?",
        "13:13: models.m.output: must not be larger than context",
        "14:18: models.m.aliases: the name 'n' is already taken on line 16",
        "15:5: models.m.price.output: is required",
        "15:25: models.m.price.outptu: is not a known key; did you mean 'output'?",
        "18:17: models.n.fallbacks: pool 'other' is already used by this model on line 17",
        "19:12: settings.prot: is not a known key; did you mean 'port'?",
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "1:1: is empty: `pools` and `models` are required"),
        ("# nothing\n", "1:1: is empty: `pools` and `models` are required"),
        ("- a\n", "1:1: must be a mapping of keys to values"),
        ("pools: {a: 1\nmodels:", "2:7: cannot be read as YAML: expected ',' or '}', but got ':'"),
        ("pools:\n\tgpu: 1", "2:1: cannot be read as YAML: found character '\\t' that cannot start any token"),
        ("a: 1\n---\nb: 2\n", "2:1: cannot be read as YAML: but found another document"),
        ("a: *x\n", "1:4: cannot be read as YAML: found undefined alias 'x'"),
        ("a: 1\nb: \x07\n", "2:4: holds a control character (code 7)"),
        ("a: !!python/object:os.system x\n", "1:4: a: tags (!...) are not supported: write the plain value"),
        ("a: {x: 1, x: 2}\n", "1:11: a.x: is given twice; the first is on line 1"),
        ("pools: {}\npools: {}\n", "2:1: pools: is given twice; the first is on line 1"),
        ("a: &b {x: 1}\nc: {<<: *b}\n", "2:5: c: merge keys (<<) are not supported: write the keys out"),
        ("? [a, b]\n: 1\n", "1:3: keys must be plain text"),
        ("a: " + "[" * 100_000, "1:34: cannot be read as YAML: nested more than 32 deep"),
        ("a: [" + "x," * 100_000 + "]", "1:4: cannot be read as YAML: more than 100000 entries"),
        ("a: &a [*a]\n", f"1:4: a{'[0]' * 31}: nested more than 32 deep"),
    ],
)
def test_what_is_no_usable_yaml(text: str, expected: str) -> None:
    assert problems(text) == [expected]


def test_an_alias_bomb_is_bounded() -> None:
    lines = ["a0: &a0 [" + ",".join(["x"] * 10) + "]"]
    lines += [f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 20)]
    [problem] = problems("\n".join(lines))
    assert problem.endswith("more than 100000 entries after expanding aliases")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("pools: {}\nmodels: {}\n", ["1:8: pools: must not be empty", "2:9: models: must not be empty"]),
        (
            "modles: {}\n",
            ["1:1: models: is required", "1:1: modles: is not a known key; did you mean 'models'?", "1:1: pools: "],
        ),
        (pool("concurrency: 0"), ["4:18: pools.gpu.concurrency: must be at least 1"]),
        (pool("concurrency: 1.5"), ["4:18: pools.gpu.concurrency: must be a whole number"]),
        (pool("headers: {Authorization: abc}"), ["4:15: pools.gpu.headers.Authorization: is a credential: "]),
        (
            pool("headers: {Content-Length: 1}"),
            ["4:15: pools.gpu.headers.Content-Length: is set by the gateway itself"],
        ),
        (pool("headers: {a b: c}"), ["4:15: pools.gpu.headers.a b: is not the name of an HTTP header"]),
        (pool('headers: {a: "b\\r\\nc: d"}'), ["4:18: pools.gpu.headers.a: must be printable ASCII"]),
        (pool("headers: {a: b, A: c}"), ["4:21: pools.gpu.headers.A: is given twice: case does not matter"]),
        (pool("timeouts: {idle_s: inf}"), ["4:24: pools.gpu.timeouts.idle_s: must be a finite number"]),
        (pool("timeouts: {idle: 3}"), ["4:16: pools.gpu.timeouts.idle: is not a known key; did you mean 'idle_s'?"]),
        (pool("health: {path: health}"), ["4:20: pools.gpu.health.path: must be a path that starts with /"]),
        (pool("api_key: sk-secret"), ["4:5: pools.gpu.api_key: is not a known key; did you mean 'api_key_"]),
        (
            pool("api_key_env: sk-secret"),
            ["4:18: pools.gpu.api_key_env: must be the name of an environment variable, "],
        ),
        (pool("api_key_env: NOT_SET"), ["4:18: pools.gpu.api_key_env: the environment variable NOT_SET is not set"]),
        (pool("api_key_file: /nowhere/key"), ["4:19: pools.gpu.api_key_file: the file cannot be read: No such file"]),
        (
            pool("api_key_env: A", "api_key_file: b"),
            ["5:5: pools.gpu.api_key_file: give api_key_env or api_key_file, not both"],
        ),
        (
            "pools: {a b: {engine: vllm, endpoints: [http://a]}}\nmodels: {m: {pool: a b}}\n",
            ["1:9: pools.a b: names of pools", "2:20: models.m.pool: names of pools"],
        ),
        (model('aliases: ["a b"]'), ["5:15: models.m.aliases[0]: names of models are"]),
        (model("aliases: default"), ["5:14: models.m.aliases: must be a list"]),
        (model("aliases: [m]"), ["5:15: models.m.aliases: the name 'm' is already taken on line 3"]),
        (model("aliases: [a, a]"), ["5:18: models.m.aliases: the name 'a' is already taken on line 5"]),
        (model("context: 256k"), ["5:14: models.m.context: must be a whole number"]),
        (model("upstream: ''"), ["5:15: models.m.upstream: must not be empty"]),
        (model("weights: {output: -1}"), ["5:23: models.m.weights.output: must be at least 0"]),
        (model("capabilities: {tools: maybe}"), ["5:27: models.m.capabilities.tools: must be true or false"]),
        (model("limits: 3"), ["5:13: models.m.limits: must be a mapping of keys to values"]),
        (model("limits: {tokens_per_minute: 0}"), ["5:33: models.m.limits.tokens_per_minute: must be at least 1"]),
        (
            model("limits: {tokens_per_minute: 9e99}"),
            ["5:33: models.m.limits.tokens_per_minute: must be a whole number"],
        ),
        (
            model("limits: {concurrent_requests: 1000001}"),
            ["5:35: models.m.limits.concurrent_requests: must be at most"],
        ),
        (
            model("limits: {output_tokens_burst: 5}"),
            ["5:14: models.m.limits.output_tokens_burst: needs output_tokens_per_"],
        ),
        (
            model("limits: {tokens_per_min: 5}"),
            ["5:14: models.m.limits.tokens_per_min: is not a known key; did you mean 'tokens_per_minute'?"],
        ),
        (model("limits: {budget_usd: 5}"), ["5:14: models.m.limits.budget_usd: is not a known key"]),
        (model("price: 3"), ["5:12: models.m.price: must be a mapping of keys to values"]),
        (model("price: {input: 1e-3, output: 1}"), ["5:20: models.m.price.input: must be a plain decimal number"]),
        (model("price: {input: 0.0000001, output: 1}"), ["5:20: models.m.price.input: is finer than 0.000001 USD"]),
        (model("price: {input: -1, output: 1}"), ["5:20: models.m.price.input: must be a plain decimal number"]),
        (
            model("price: {input: 1000001, output: 1}"),
            ["5:20: models.m.price.input: is too large: at most 1000000 USD"],
        ),
    ],
)
def test_mistakes_in_one_place(text: str, expected: list[str]) -> None:
    found = problems(text)
    assert len(found) == len(expected), found
    for message, start in zip(found, expected, strict=True):
        assert message.startswith(start)
    assert "secret" not in "".join(found).replace("not the credential itself", "")


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("10.0.0.5:8000", "must be an http:// or https:// address"),
        ("http://", "must be an http:// or https:// address"),
        ("http://a:0", "must be an http:// or https:// address"),
        ("http://a:port", "must be an address"),
        ("http://[::1", "must be an address"),
        ("http://a b", "must be an address"),
        ("http://user:secret@a", "must not hold credentials"),
        ("http://a/?key=secret", "must not hold a query"),
        ("http://a/../b", "may only have a plain base path"),
        ("http://a/v1/chat/completions", "must be the base address alone"),
    ],
)
def test_what_is_no_engine_address(url: str, expected: str) -> None:
    [problem] = problems(endpoint(url))
    assert problem.startswith(f"1:41: pools.gpu.endpoints[0]: {expected}")
    assert "secret" not in problem


def test_the_same_engine_twice() -> None:
    assert problems(endpoint('http://a", "http://A/v1/')) == ["1:40: pools.gpu.endpoints: lists the same engine twice"]


@pytest.mark.parametrize(
    ("content", "expected"),
    [(b"", "is empty"), (b"a b\n\x00", "characters that no HTTP header"), (b"x" * 70_000, "larger than 65536 bytes")],
)
def test_a_credential_that_cannot_be_used(tmp_path: Path, content: bytes, expected: str) -> None:
    (tmp_path / "key").write_bytes(content)
    with pytest.raises(ConfigFileError, match=expected) as refused:
        parse_config(pool("api_key_file: key"), tmp_path / "penstock.yaml")
    assert refused.value.secret_files == (tmp_path / "key",)


def test_credentials_can_be_left_unread() -> None:
    config = parse_config(pool("api_key_env: NOT_SET"), environ={}, with_credentials=False)
    assert config.pools["gpu"].api_key is None


def test_a_flood_of_problems_is_cut_short() -> None:
    found = problems("pools: {" + ", ".join(f"p{n}: x" for n in range(300)) + "}\nmodels: {m: {pool: p1}}\n")
    assert len(found) == 101
    assert found[-1] == " and 200 more"
