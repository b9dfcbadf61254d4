"""Reads penstock.yaml: text, to tree, to validated entries, to the frozen objects of `gateway.domain.config`.

Either everything is well or a ConfigFileError tells all that is wrong at once, each with line and column.
"""

from __future__ import annotations

import dataclasses
import os
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from gateway.domain.config import (
    PROVIDER_ADDRESS,
    Capabilities,
    EngineKind,
    GatewayConfig,
    ModelConfig,
    ModelLimits,
    PoolConfig,
    Price,
    Timeouts,
    TokenWeights,
)
from gateway.settings.credentials import Credentials
from gateway.settings.fields import FileSettings
from gateway.settings.problems import ConfigFileError, ConfigProblem
from gateway.settings.references import reference_problems
from gateway.settings.schema import Document, ModelEntry, PoolEntry, PriceEntry
from gateway.settings.validation import validate
from gateway.settings.yaml_tree import BYTES_MAX, PROBLEMS_MAX, Tree, joined, parse_tree

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


def load_config(path: str | Path, *, timeouts: Timeouts | None = None, with_credentials: bool = True) -> GatewayConfig:
    """Read and check the file at `path`; see `parse_config`. Raises ConfigFileError, also when it cannot be read."""
    return parse_config(read_text(path), path, timeouts=timeouts, with_credentials=with_credentials)


def parse_config(
    text: str,
    source: str | Path = "penstock.yaml",
    *,
    timeouts: Timeouts | None = None,
    environ: Mapping[str, str] | None = None,
    with_credentials: bool = True,
) -> GatewayConfig:
    """Return what `text` says. Raises ConfigFileError with every problem there is.

    Args:
        text: YAML of at most 1 MiB.
        source: name of the file, for messages; `api_key_file` paths are relative to its folder.
        timeouts: for pools that set none (`Settings.timeouts`); default: what the file's `settings:` say.
        environ: where `api_key_env` is looked up; default: the process environment.
        with_credentials: False leaves `api_key_env` and `api_key_file` unread and does not ask whether litellm is
            installed, to check a file elsewhere than where it will be used.
    """
    tree = parse_tree(text, str(source))
    document, problems = validate(Document, tree)
    problems.extend(islice(reference_problems(tree), PROBLEMS_MAX))
    if document is None or problems:
        raise ConfigFileError(str(source), problems)
    credentials = Credentials(os.environ if environ is None else environ, Path(source).parent)
    pools = [
        _pool(name, entry, timeouts or document.settings.timeouts, credentials if with_credentials else None)
        for name, entry in document.pools.items()
    ]
    missing = credentials.problems | (_missing_packages(document) if with_credentials else {})
    if missing:
        raise ConfigFileError(str(source), _placed(missing, tree), credentials.files)
    models = [_model(name, entry) for name, entry in document.models.items()]
    return GatewayConfig.of(pools, models, credentials.files, document.sign_in.config())


def read_settings_section(path: Path) -> dict[str, object]:
    """Return what the file's `settings:` give, checked; nothing when there is no file. Raises ConfigFileError."""
    if not path.exists():
        return {}
    tree = parse_tree(read_text(path), str(path))
    section = tree.child("settings")
    if section is None:
        return {}
    settings, problems = validate(FileSettings, section, "settings")
    if settings is None:
        raise ConfigFileError(str(path), problems)
    return settings.model_dump(exclude_unset=True)


def read_text(path: str | Path) -> str:
    """Return the file's text, at most 1 MiB of UTF-8. Raises ConfigFileError."""

    def problem(message: str, line: int = 1) -> ConfigFileError:
        return ConfigFileError(str(path), [ConfigProblem(line, 1, "", message)])

    try:
        with Path(path).open("rb") as file:
            content = file.read(BYTES_MAX + 1)
    except OSError as error:
        raise problem(f"cannot be read: {error.strerror or type(error).__name__}") from None
    if len(content) > BYTES_MAX:
        raise problem(f"is larger than {BYTES_MAX} bytes")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise problem("is not UTF-8 text", content[: error.start].count(b"\n") + 1) from None


def _pool(name: str, entry: PoolEntry, timeouts: Timeouts, credentials: Credentials | None) -> PoolConfig:
    return PoolConfig(
        name=name,
        engine_kind=entry.engine,
        endpoints=entry.endpoints or (PROVIDER_ADDRESS,),
        concurrency=entry.concurrency,
        api_key=credentials.of(name, entry) if credentials else None,
        headers=MappingProxyType(entry.headers),
        timeouts=dataclasses.replace(timeouts, **entry.timeouts.model_dump(exclude_none=True)),
        health=entry.health.check(entry.engine),
    )


def _model(name: str, entry: ModelEntry) -> ModelConfig:
    return ModelConfig(
        name=name,
        pool=entry.pool,
        upstream=entry.upstream or name,
        fallbacks=entry.fallbacks,
        aliases=entry.aliases,
        context_tokens=entry.context,
        output_tokens=entry.output,
        price=_price(entry.price) if entry.price else None,
        weights=TokenWeights(**entry.weights.model_dump()),
        capabilities=Capabilities(**entry.capabilities.model_dump()),
        media_hosts=entry.media_hosts,
        limits=ModelLimits(**entry.limits.model_dump()),
    )


def _price(entry: PriceEntry) -> Price:
    return Price(
        input_pico_usd=entry.input,
        cached_input_pico_usd=entry.input if entry.cached_input is None else entry.cached_input,
        output_pico_usd=entry.output,
        reasoning_pico_usd=entry.output if entry.reasoning is None else entry.reasoning,
        request_pico_usd=entry.request,
    )


def _missing_packages(document: Document) -> dict[tuple[str, str], str]:
    """Return a problem for each pool whose engine needs a package that is not installed: it is not imported here."""
    if find_spec("litellm") is not None:
        return {}
    message = "needs litellm, which is not installed: pip install 'penstock[litellm]'"
    return {(name, "engine"): message for name, pool in document.pools.items() if pool.engine is EngineKind.LITELLM}


def _placed(problems: Mapping[tuple[str, str], str], root: Tree) -> Iterator[ConfigProblem]:
    for (pool, key), message in problems.items():
        node = root
        for step in ("pools", pool, key):
            node = node.child(step) or node
        yield ConfigProblem(node.line, node.column, f"{joined('pools', pool)}.{key}", message)
