"""Requests of the walk: an operation of the OpenAPI document, called with the references of its entry in the table."""

from __future__ import annotations

import json
import re
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from gateway import __version__
from gateway.admin.api import build_admin_app
from gateway.admin.routes.context import Control
from gateway.domain.config import EngineKind, GatewayConfig, PoolConfig
from tests.support.walk.table import POOL
from tests.support.walk.world import PEPPERS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Mapping

    import httpx2
    from fastapi import FastAPI

    from gateway.admin.database import Database, Pool
    from tests.support.walk.table import Operation

CONFIG = GatewayConfig.of([PoolConfig(POOL, EngineKind.VLLM, ("http://user:secret@engine:8000?token=secret",))], [])
_OF_THE_REQUEST = re.compile(r"urn:uuid:[0-9a-f-]{36}|\d{4}-\d\d-\d\dT[\d:.]+Z")


@dataclass(frozen=True)
class Answer:
    """What was answered; `text` without the request's own id, and without moments."""

    status: int
    text: str


@dataclass(frozen=True)
class Endpoint:
    """One operation of the document: where it is, and the names of what it takes."""

    method: str
    path: str
    parameters: frozenset[str]
    body: frozenset[str]


class _InTransaction:
    """In the place of a pool: one connection with a transaction open, within which each request's is a savepoint."""

    def __init__(self, db: Database) -> None:
        self._db = db

    @asynccontextmanager
    async def acquire(self, *, timeout: float) -> AsyncIterator[Database]:  # noqa: ASYNC109 - as asyncpg's has it
        assert timeout > 0
        yield self._db


def application(db: Database) -> FastAPI:
    """Return the real application, on the transaction of `db`."""
    pool = cast("Pool", _InTransaction(db))
    return build_admin_app(Control(lambda: pool, PEPPERS, lambda: CONFIG), __version__)


def endpoints(document: dict[str, Any]) -> dict[str, Endpoint]:
    """Return every operation of an OpenAPI document by its id."""
    return dict(_endpoints(document))


def _endpoints(document: dict[str, Any]) -> Iterator[tuple[str, Endpoint]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            named = frozenset(f"{each['in']}.{each['name']}" for each in operation.get("parameters", ()))
            content = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
            yield operation["operationId"], Endpoint(method.upper(), path, named, _properties(content, document))


def _properties(content: dict[str, Any], document: dict[str, Any]) -> frozenset[str]:
    schema = content.get("schema", {})
    found = [schema, *schema.get("anyOf", ())]
    parts = [document["components"]["schemas"][each["$ref"].rpartition("/")[2]] for each in found if "$ref" in each]
    return frozenset(name for part in parts for name in part.get("properties", {}))


async def call(
    client: httpx2.AsyncClient,
    endpoint: Endpoint,
    operation: Operation,
    references: Mapping[str, str],
    token: str | None,
) -> Answer:
    """Send one request; `references` are by slot."""
    path = endpoint.path
    query, body = dict(operation.query), None if operation.body is None else dict(operation.body)
    for name, value in operation.path.items():
        path = path.replace(f"{{{name}}}", value)
    for slot, reference in references.items():
        place, name = slot.split(".")
        if place == "path":
            path = path.replace(f"{{{name}}}", reference)
        elif place == "query":
            query[name] = reference
        else:
            body = (body or {}) | {name: [reference] if name == "teams" else reference}
    headers = {} if token is None else {"authorization": f"Bearer {token}"}
    content = None if body is None else json.dumps(body).encode()
    if content is not None:
        headers["content-type"] = "application/json"
    answer = await client.request(endpoint.method, path, params=query, headers=headers, content=content)
    return Answer(answer.status_code, _OF_THE_REQUEST.sub("…", answer.text))
