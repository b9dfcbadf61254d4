"""Examples in the OpenAPI document: one for each body and answer, put together from what each field is called.

So an operation has its example without anybody writing one, and the same thing looks the same everywhere.
"""

from __future__ import annotations

from typing import Any, Final

_ID: Final = "5b3a1c52-6b8f-4c8e-9f64-0d1c7a0f2b11"
_VALUES: Final[dict[str, Any]] = {
    "action": "change",
    "address": "203.0.113.7",
    "addresses": ["10.0.0.0/8", "2001:db8::/32"],
    "admin_key": "Zk3vQ9xT1mB7aLw2",
    "budget_day_usd": "25.00",
    "budget_month_usd": "500.00",
    "by": "team",
    "cached_input": "0.02",
    "client_id": "penstock",
    "concurrent_requests": 20,
    "cost_usd": "12.345678",
    "description": "to the team's chat",
    "email": "ann@example.com",
    "endpoint": "http://10.0.0.5:8000",
    "engine_kind": "vllm",
    "events": ["budget.threshold"],
    "expires_in": "30d",
    "from": "2026-09-01",
    "grace": "24h",
    "id_token": "eyJhbGciOiJSUzI1NiJ9.e30.c2ln",
    "input": "0.20",
    "issuer": "https://id.example.com",
    "kind": "team",
    "level": "team",
    "model": "qwen-coder",
    "models": ["qwen-coder"],
    "name": "search",
    "organization": "acme",
    "output": "0.60",
    "public_id": "Zk3vQ9xT1mB7aLw2",
    "reasoning": "0.60",
    "request": "0",
    "requests_per_minute": 600,
    "role": "member",
    "scopes": "openid email profile",
    "source": "manual",
    "status": "active",
    "subject": "search",
    "team": "search",
    "teams": ["search"],
    "tokens_per_minute": 200_000,
    "url": "https://hooks.example.com/penstock",
    "user": "ann",
}
_FORMATS: Final = {"uuid": _ID, "date-time": "2026-08-01T12:00:00Z", "date": "2026-08-01", "uri": "https://example.com"}
_TYPES: Final[dict[str, type | tuple[type, ...]]] = {
    "string": str,
    "integer": int,
    "number": (int, float),
    "boolean": bool,
    "array": list,
    "object": dict,
}
_SHOWN_OF_BODIES: Final = frozenset(
    {"name", "role", "team", "teams", "organization", "models", "expires_in", "grace", "url", "requests_per_minute"}
    | {"budget_month_usd", "user", "organizations"}
)
"""What a request's example has beside what is required: all that could be said would say nothing."""

DEPTH_MAX: Final = 12


def add_examples(document: dict[str, Any]) -> None:
    """Give every body and every successful answer of JSON in an OpenAPI document an example."""
    schemas = document["components"]["schemas"]
    for path in document["paths"].values():
        for operation in path.values():
            body = operation.get("requestBody", {}).get("content", {}).get("application/json")
            if body is not None:
                body["example"] = _given(body["schema"], schemas) or _example(body["schema"], "", schemas, body=True)
            for status, answer in operation["responses"].items():
                shown = answer.get("content", {}).get("application/json")
                if status.startswith("2") and shown is not None:
                    shown["example"] = _example(shown.get("schema", {}), "", schemas)


def _given(schema: dict[str, Any], schemas: dict[str, Any]) -> object:
    """Return the example that a body's own schema has, if any."""
    examples: list[object] = _resolved(schema, schemas).get("examples", [])
    return examples[0] if examples else None


def _resolved(schema: dict[str, Any], schemas: dict[str, Any]) -> dict[str, Any]:
    """Return what a reference refers to, and of alternatives the first that is something."""
    while True:
        if "$ref" in schema:
            schema = schemas[schema["$ref"].rpartition("/")[2]]
        elif "anyOf" in schema or "oneOf" in schema:
            options = schema.get("anyOf") or schema["oneOf"]
            schema = next((each for each in options if each.get("type") != "null"), options[0])
        else:
            return schema


def _example(schema: dict[str, Any], name: str, schemas: dict[str, Any], *, body: bool = False, depth: int = 0) -> Any:
    """Return a value that fits a schema, for a field of this name."""
    assert depth < DEPTH_MAX, f"{name} is inside of itself"
    resolved = _resolved(schema, schemas)
    if "const" in resolved:
        return resolved["const"]
    known = _VALUES.get(name)
    if "enum" in resolved:
        return known if known in resolved["enum"] else resolved["enum"][0]
    kind = resolved.get("type", "object")
    if kind == "array":
        return known if _fits_items(known, resolved, schemas) else _items(resolved, name, schemas, depth)
    if kind == "object":
        return {
            field: _example(each, field, schemas, body=body, depth=depth + 1)
            for field, each in resolved.get("properties", {}).items()
            if not body or field in resolved.get("required", ()) or field in _SHOWN_OF_BODIES
        }
    if known is not None and isinstance(known, _TYPES.get(kind, object)) and "format" not in resolved:
        return known
    return _plain(resolved, kind)


def _fits_items(known: object, schema: dict[str, Any], schemas: dict[str, Any]) -> bool:
    """Whether a known list is one of texts, as the schema wants them."""
    return isinstance(known, list) and _resolved(schema.get("items", {}), schemas).get("type") == "string"


def _items(schema: dict[str, Any], name: str, schemas: dict[str, Any], depth: int) -> list[Any]:
    items = schema.get("items") or next(iter(schema.get("prefixItems", ())), None)
    return [] if items is None else [_example(items, name.removesuffix("s"), schemas, depth=depth + 1)]


def _plain(schema: dict[str, Any], kind: str) -> Any:
    """Return a value of a type that has no parts."""
    if kind == "string":
        return _FORMATS.get(schema.get("format", ""), "…" * max(1, schema.get("minLength", 1)))
    if kind in {"integer", "number"}:
        return max(1, schema.get("minimum", 1))
    return {"boolean": True}.get(kind)
