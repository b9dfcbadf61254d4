"""What only two places of penstock.yaml together can tell: pools that exist, names that are unique, bounds that fit.

Works on the tree, not on the validated models, so that a mistake elsewhere in the file hides none of these.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.domain.config import EngineKind
from gateway.settings.problems import ConfigProblem, did_you_mean, printable
from gateway.settings.schema import LimitsEntry
from gateway.settings.sign_in import sign_in_problems
from gateway.settings.yaml_tree import Tree, joined

if TYPE_CHECKING:
    from collections.abc import Iterator


def reference_problems(root: Tree) -> Iterator[ConfigProblem]:
    """Yield every problem between parts of the file, in no particular order."""
    pools, models = root.child("pools"), root.child("models")
    known = {name for name, _ in pools.items()} if pools else set()
    translated = {name for name, pool in pools.items() if _is_translated(pool)} if pools else set()
    for name, pool in pools.items() if pools else ():
        yield from _pool_problems(joined("pools", name), pool)
        yield from _address_problems(joined("pools", name), pool)
    for name, model in models.items() if models else ():
        yield from _pool_references(joined("models", name), model, known)
        yield from _upstream_problems(joined("models", name), name, model, translated)
        yield from _token_bounds(joined("models", name), model)
        yield from _bursts_alone(joined("models", name), model)
    if models:
        yield from _name_clashes(models)
    yield from sign_in_problems(root)


def _at(tree: Tree, path: str, message: str) -> ConfigProblem:
    return ConfigProblem(tree.line, tree.column, path, message)


def _pool_problems(path: str, pool: Tree) -> Iterator[ConfigProblem]:
    key_file = pool.child("api_key_file")
    if key_file and pool.child("api_key_env"):
        yield ConfigProblem(
            key_file.key_line, key_file.key_column, f"{path}.api_key_file", "give api_key_env or api_key_file, not both"
        )
    headers = pool.child("headers")
    seen: set[str] = set()
    for name, header in headers.items() if headers else ():
        if name.lower() in seen:
            where = joined(f"{path}.headers", name)
            yield ConfigProblem(header.key_line, header.key_column, where, "is given twice: case does not matter")
        seen.add(name.lower())


def _is_translated(pool: Tree) -> bool:
    engine = pool.child("engine")
    return engine is not None and engine.value == EngineKind.LITELLM.value


def _address_problems(path: str, pool: Tree) -> Iterator[ConfigProblem]:
    """Yield engines without an address, and a probe of what is reached through litellm, which has none."""
    if not _is_translated(pool):
        if isinstance(pool.value, dict) and pool.child("endpoints") is None:
            yield ConfigProblem(pool.key_line, pool.key_column, f"{path}.endpoints", "is required")
        return
    health = pool.child("health")
    probe = health.child("path") if health else None
    if probe is not None and probe.value is not None:
        yield _at(probe, f"{path}.health.path", "litellm cannot be probed: requests alone tell how a provider is")


def _upstream_problems(path: str, name: str, model: Tree, translated: set[str]) -> Iterator[ConfigProblem]:
    """Yield models of litellm pools that leave it to litellm to guess the provider."""
    values = (model.child(key) for key in ("pool", "fallbacks"))
    pools = {str(reference.value) for value in values if value for reference in value.texts()}
    if not pools & translated:
        return
    upstream = model.child("upstream")
    if "/" not in str(name if upstream is None else upstream.value):
        message = "must begin with litellm's name of the provider, as in anthropic/claude-sonnet-4-5"
        yield _at(upstream or model, f"{path}.upstream", message)


def _pool_references(path: str, model: Tree, known: set[str]) -> Iterator[ConfigProblem]:
    """Yield pools that do not exist, and pools listed twice."""
    seen: dict[str, Tree] = {}
    for key in ("pool", "fallbacks"):
        value = model.child(key)
        for reference in value.texts() if value else ():
            name = str(reference.value)
            if name in seen:
                message = f"pool {printable(name)} is already used by this model on line {seen[name].line}"
                yield _at(reference, f"{path}.{key}", message)
            elif name not in known:
                message = f"there is no pool {printable(name)}{did_you_mean(name, known)}"
                yield _at(reference, f"{path}.{key}", message)
            seen.setdefault(name, reference)


def _token_bounds(path: str, model: Tree) -> Iterator[ConfigProblem]:
    context, output = model.child("context"), model.child("output")
    if not context or not output:
        return
    try:
        fits = int(str(output.value)) <= int(str(context.value))
    except ValueError:
        return  # the schema says so
    if not fits:
        yield _at(output, f"{path}.output", "must not be larger than context")


def _bursts_alone(path: str, model: Tree) -> Iterator[ConfigProblem]:
    """Yield bursts of rates that are not given: they would limit nothing."""
    limits = model.child("limits")
    for name, burst in limits.items() if limits else ():
        rate = f"{name.removesuffix('_burst')}_per_minute"
        if limits and name.endswith("_burst") and rate in LimitsEntry.model_fields and limits.child(rate) is None:
            yield ConfigProblem(burst.key_line, burst.key_column, f"{path}.limits.{name}", f"needs {rate}")


def _name_clashes(models: Tree) -> Iterator[ConfigProblem]:
    """Yield aliases that are also another model's name, or given twice."""
    taken: dict[str, Tree] = dict(models.items())
    for name, model in models.items():
        aliases = model.child("aliases")
        for alias in aliases.texts() if aliases else ():
            text = str(alias.value)
            if text in taken:
                message = f"the name {printable(text)} is already taken on line {taken[text].key_line}"
                yield _at(alias, f"{joined('models', name)}.aliases", message)
            taken.setdefault(text, alias)
