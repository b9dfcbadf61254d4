"""Importing a module opens nothing, starts nothing and keeps nothing: what lives, lives on a stack in `resources`.

What a module may call while it is imported is listed here by name, so that a client or a cache made at import time is
seen whatever library it comes from.
"""

from __future__ import annotations

import ast
import re
from typing import TYPE_CHECKING

from tests.support.source import Module, fail_for, modules

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

DECLARATIONS = frozenset(
    # values and types of the language and its library
    {"UUID", "dt.date", "dt.datetime", "dt.timedelta", "IPv4Network", "IPv6Network"}
    | {
        "NewType",
        "ParamSpec",
        "TypeVar",
        "Path",
        "frozenset",
        "tuple",
        "dict.fromkeys",
        "re.compile",
        "MappingProxyType",
        "field",
    }
    # what only describes: settings, messages, commands, routes, tables
    | {"AfterValidator", "BeforeValidator", "ConfigDict", "Field", "Meta", "SecretStr", "SettingsConfigDict"}
    | {"WithJsonSchema"}
    | {"msgspec.Raw", "msgspec.field", "msgspec.json.Decoder", "msgspec.json.Encoder", "Raw"}
    | {"typer.Option", "typer.Argument", "typer.Typer", "APIRouter", "Depends", "HTTPBearer", "Query"}
    | {"ARRAY", "CheckConstraint", "Column", "DateTime", "ForeignKey", "ForeignKeyConstraint", "Identity", "Index"}
    | {"MetaData", "Numeric", "Table", "UniqueConstraint", "text", "row_id", "created_at", "deleted_at"}
    | {"sums_of_use"}
    # a proxy that is bound to nothing before it is used, and a table that is worked out once
    | {"structlog.get_logger", "token_texts"}
)
PURE_METHODS = frozenset(
    {"decode", "encode", "format", "join", "keys", "replace", "split", "strip", "values", "with_name"}
)
DECORATORS = frozenset(
    {"abc.abstractmethod", "asynccontextmanager", "contextlib.asynccontextmanager", "contextlib.contextmanager"}
    | {"contextmanager", "classmethod", "dataclass", "property", "staticmethod", "overload"}
    | {"app.command", "app.callback", "router.delete", "router.get", "router.patch", "router.post", "router.put"}
    | {"model_validator", "field_validator", "on_gateway", "unique", "wraps"}
)
IMMUTABLE_BASES = frozenset({"NamedTuple", "Enum", "StrEnum", "IntEnum", "Protocol", "TypedDict"})
CHANGING_METHODS = frozenset(
    {"add", "append", "appendleft", "clear", "discard", "extend", "insert", "pop", "popitem", "popleft", "remove"}
    | {"setdefault", "sort", "update"}
)
CONSTANT = re.compile(r"_*[A-Z][A-Z0-9_]*|__all__")
MUTABLE = (ast.Dict, ast.List, ast.Set, ast.DictComp, ast.ListComp, ast.SetComp)


def test_importing_calls_only_what_declares() -> None:
    values = _values()
    fail_for(
        f"{module}:{call.lineno} {ast.unparse(call.func)}"
        for module in modules("gateway")
        for call in _calls(_at_import(module.tree.body))
        if not _declares(call, values | _helpers(module))
    )


def test_decorators_keep_nothing() -> None:
    """No `lru_cache`: what is remembered belongs to an object that somebody made and somebody drops."""
    fail_for(
        f"{module}:{decorator.lineno} @{name}"
        for module in modules("gateway")
        for node in ast.walk(module.tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
        for decorator in node.decorator_list
        if (name := ast.unparse(decorator.func if isinstance(decorator, ast.Call) else decorator)) not in DECORATORS
        and not name.endswith(".setter")
    )


def test_modules_hold_constants_alone() -> None:
    """A table at module level is named as a constant and never changed; nothing is rebound through `global`."""
    for module in modules("gateway"):
        names = {name for statement in module.tree.body for name in _names(statement)}
        tables = {
            name
            for statement in module.tree.body
            if isinstance(statement, ast.Assign | ast.AnnAssign) and isinstance(statement.value, MUTABLE)
            for name in _names(statement)
        }
        fail_for(
            f"{module}: {name} can change and is not named as a constant"
            for name in tables
            if not CONSTANT.fullmatch(name)
        )
        fail_for(f"{module}: {ast.unparse(node)}" for node in ast.walk(module.tree) if _changes(node, names))


def _at_import(body: Iterable[ast.stmt]) -> Iterator[ast.AST]:
    """Yield what runs when the module is imported: not functions' bodies, nor what only scripts or types reach."""
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield from node.args.defaults
            yield from (default for default in node.args.kw_defaults if default is not None)
        elif isinstance(node, ast.ClassDef):
            yield from _at_import(node.body)
        elif isinstance(node, ast.If) and ast.unparse(node.test) in {"TYPE_CHECKING", "__name__ == '__main__'"}:
            yield from _at_import(node.orelse)
        elif not isinstance(node, ast.Import | ast.ImportFrom):
            yield node


def _calls(nodes: Iterable[ast.AST]) -> Iterator[ast.Call]:
    """Yield the calls in these nodes, but not those that wait in a lambda."""
    for node in nodes:
        if isinstance(node, ast.Call):
            yield node
        if not isinstance(node, ast.Lambda):
            yield from _calls(ast.iter_child_nodes(node))


def _declares(call: ast.Call, own: frozenset[str]) -> bool:
    name = ast.unparse(call.func)
    if name in DECLARATIONS or name in own:
        return True
    return isinstance(call.func, ast.Attribute) and call.func.attr in PURE_METHODS


def _values() -> frozenset[str]:
    """Return the names of the gateway's own classes whose objects cannot change."""
    found: set[str] = set()
    for module in modules("gateway"):
        for node in module.tree.body:
            if isinstance(node, ast.ClassDef) and _is_immutable(node):
                found.add(node.name)
            elif isinstance(node, ast.Assign) and ast.unparse(node.value).startswith("NewType("):
                found |= _names(node)
    return frozenset(found)


def _helpers(module: Module) -> frozenset[str]:
    """Return the functions that the module itself defines."""
    return frozenset(node.name for node in module.tree.body if isinstance(node, ast.FunctionDef))


def _is_immutable(node: ast.ClassDef) -> bool:
    frozen = (ast.unparse(keyword) == "frozen=True" for call in _described(node) for keyword in call.keywords)
    bases = {ast.unparse(base).rpartition(".")[2] for base in node.bases}
    # Entries and settings inherit `frozen=True` from a base that states it.
    return any(frozen) or bool(bases & IMMUTABLE_BASES) or any(base.endswith(("Entry", "Settings")) for base in bases)


def _described(node: ast.ClassDef) -> Iterator[ast.Call | ast.ClassDef]:
    yield node  # class Options(Struct, frozen=True)
    yield from (decorator for decorator in node.decorator_list if isinstance(decorator, ast.Call))
    yield from (
        statement.value
        for statement in node.body
        if isinstance(statement, ast.Assign) and isinstance(statement.value, ast.Call)
    )


def _names(statement: ast.stmt) -> set[str]:
    targets = statement.targets if isinstance(statement, ast.Assign) else []
    if isinstance(statement, ast.AnnAssign):
        targets = [statement.target]
    return {target.id for target in targets if isinstance(target, ast.Name)}


def _changes(node: ast.AST, names: set[str]) -> bool:
    """Whether the node changes something that the module holds."""
    if isinstance(node, ast.Global):
        return True
    if isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Store | ast.Del):
        return isinstance(node.value, ast.Name) and node.value.id in names
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in CHANGING_METHODS:
        return isinstance(node.func.value, ast.Name) and node.func.value.id in names
    return False
