"""What the gateway's own OpenAPI document promises, held to it by Schemathesis: boundaries, negations and random cases.

The document is the one that is served; only the model's name is narrowed, so that requests reach the engine. Another
seed: PENSTOCK_TEST_SEED=N.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from gateway.admin.credentials import create_admin_credential
from gateway.admin.database import transaction_on
from gateway.admin.scope import PLATFORM
from tests.hostile.seed import seed
from tests.support.servers import run_blocking
from tests.support.stack import Stack, running_stack
from tests.support.tenants import NO_PEPPERS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gateway.dev.servers import ServerAddresses
    from tests.support.servers import Databases

RUN_S_MAX = 280
CHECKS = (
    "not_a_server_error,status_code_conformance,content_type_conformance,response_headers_conformance,"
    "response_schema_conformance,unsupported_method"
)
OURS = {
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/embeddings",
    "/v1/messages",
    "/v1/messages/count_tokens",
    "/v1/responses",
    "/v1/models",
    "/v1/models/{model}",
}


@pytest.fixture(scope="module")
def stack(databases: Databases, servers: ServerAddresses, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """One replica. That its log holds no traceback is asserted at the end."""
    with running_stack(databases, servers, tmp_path_factory.mktemp("openapi")) as running:
        yield running


@pytest.fixture(scope="module")
def document(stack: Stack) -> dict[str, Any]:
    """The document that the gateway serves."""
    served: dict[str, Any] = stack.gateway.http().get("/openapi.json").document
    return served


def admin_key(dsn: str) -> str:
    """Make an admin key for the whole platform."""

    async def make() -> str:
        async with transaction_on(dsn) as db:
            return (await create_admin_credential(db, PLATFORM, NO_PEPPERS)).key

    return run_blocking(make())


def with_model(document: dict[str, Any]) -> dict[str, Any]:
    """Return the document with the one model's name in it."""
    narrowed: dict[str, Any] = json.loads(json.dumps(document))
    for path in narrowed["paths"].values():
        body = path.get("post", {}).get("requestBody", {}).get("content", {}).get("application/json", {})
        model = body.get("schema", {}).get("properties", {}).get("model")
        if model is not None:
            model["enum"] = ["sim", "default"]
    return narrowed


def conforms(stack: Stack, document: dict[str, Any], folder: Path, paths: str, key: str | None) -> None:
    """Run Schemathesis over some paths; fails with all it has to say. Without a key, little is needed to be refused."""
    phases, examples = ("examples,coverage,fuzzing", 10) if key else ("fuzzing", 4)
    schema = folder / "openapi.json"
    schema.write_text(json.dumps(document))
    command = [
        *(str(Path(sys.executable).with_name("schemathesis")), "run", str(schema), "--url", stack.gateway.url),
        *("--include-path-regex", paths, "--checks", CHECKS, "--phases", phases),
        *("--seed", str(seed()), "--generation-database", "none", "--max-examples", str(examples)),
        *("--no-color", "--request-timeout", "20", "--continue-on-failure"),
        *(("--header", f"Authorization: Bearer {key}") if key else ()),
    ]
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=RUN_S_MAX, stdin=subprocess.DEVNULL, check=False
    )
    assert done.returncode == 0, f"seed {seed()}\n{done.stdout}\n{done.stderr}"
    assert "generated" in done.stdout, "cases were made"


def test_the_document_tells_the_whole_surface(document: dict[str, Any]) -> None:
    assert document["paths"].keys() > OURS
    assert any(path.startswith("/admin/v1/") for path in document["paths"])


@pytest.mark.parametrize("known", [False, True], ids=["without a key", "with a key"])
@pytest.mark.parametrize("paths", ["^/admin/v1/", "^/v1/"], ids=["control plane", "data path"])
def test_every_answer_is_as_the_document_says(
    stack: Stack, document: dict[str, Any], tmp_path: Path, paths: str, *, known: bool
) -> None:
    key = None
    if known:
        key = stack.tenant().key if paths == "^/v1/" else admin_key(stack.dsn)
    before = stack.engine.counters()["received"]
    conforms(stack, with_model(document), tmp_path, paths, key)
    reached = stack.engine.counters()["received"] > before
    assert reached == (known and paths == "^/v1/"), "who has a key gets to the engine, and nobody else"
