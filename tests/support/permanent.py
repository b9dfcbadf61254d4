"""Every permanent error there is, as classes and as requests that meet them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gateway.admin.bounds import BODY_BYTES_MAX
from gateway.admin.credentials import create_admin_credential
from gateway.admin.database import transaction_on
from gateway.admin.scope import PLATFORM
from gateway.admit.script_call import ScriptFailed
from gateway.authenticate.refusals import EndedKey
from gateway.errors import GatewayError
from tests.support.chat import chat, tool
from tests.support.gateway import SIM_MODEL
from tests.support.servers import run_blocking
from tests.support.tenants import NO_PEPPERS

if TYPE_CHECKING:
    from tests.support.stack import Stack

CHAT = "/v1/chat/completions"
ADMIN = "/admin/v1/organizations"
IMAGE = [{"type": "image_url", "image_url": {"url": "http://169.254.169.254/"}}]
WIDE = {f"property_{number}": "string" for number in range(50)}
"""Of a tool that is larger than the smallest limit."""
HEADER_BYTES_MAX = 8192
DATA_BYTES_MAX = 65_536
REPLICA: dict[str, Any] = {
    "header_bytes_max": HEADER_BYTES_MAX,
    "body_bytes_max": DATA_BYTES_MAX,
    "config": {
        "models": {"sim": SIM_MODEL, "old": {"pool": "old"}},
        "pools": {"old": {"engine": "tgi", "endpoints": ["http://127.0.0.1:9"]}},  # nothing is ever sent there
    },
}
"""What `running_stack` is to be told for `refused_requests`: small bounds, and engines that lack endpoints."""

_OF_THE_DATA_PATH = {GatewayError.__module__, EndedKey.__module__, ScriptFailed.__module__}

Case = tuple[str, str, object, dict[str, str], int, str]
"""Method, path, body, headers; status and code of the refusal."""


def every_class(base: type[GatewayError] = GatewayError) -> list[type[GatewayError]]:
    """Return all errors of the tree that the data path may answer with, whatever else was imported meanwhile."""
    below = (each for child in base.__subclasses__() for each in every_class(child))
    return [base, *(each for each in below if each.__module__ in _OF_THE_DATA_PATH)]


def permanent_classes() -> list[type[GatewayError]]:
    """Return the errors of the tree that a repetition cannot help."""
    return [each for each in every_class() if each("").permanent]


def refused_requests(stack: Stack) -> list[Case]:
    """Return requests that are wrong for good, one for each code. The stack needs `REPLICA`."""
    narrow, small = stack.tenant(models=["other"]), stack.tenant(tokens_per_minute=200)
    elsewhere = {"authorization": f"Bearer {stack.tenant(addresses=['192.0.2.1']).key}"}
    poor = {"authorization": f"Bearer {stack.tenant(budget_day_pico_usd=0).key}"}
    return [
        *_data_path(stack.tenant().key, small.key, narrow.key),
        ("POST", CHAT, chat(), poor, 402, "budget_exceeded"),
        ("POST", CHAT, chat(), elsewhere, 403, "address_not_allowed"),
        *_control_plane(stack, admin(stack.dsn)),
    ]


def admin(dsn: str, organization: str | None = None) -> dict[str, str]:
    """Return the header of a new admin key, of the platform or of one organization."""

    async def make() -> str:
        async with transaction_on(dsn) as db:
            return (await create_admin_credential(db, PLATFORM, NO_PEPPERS, organization=organization)).key

    return {"authorization": f"Bearer {run_blocking(make())}"}


def _data_path(key: str, small: str, narrow: str) -> list[Case]:
    may, limited = {"authorization": f"Bearer {key}"}, {"authorization": f"Bearer {small}"}
    return [
        ("POST", CHAT, b"{", may, 400, "invalid_request"),
        ("POST", CHAT, chat(messages=[{"role": "user", "content": IMAGE}]), may, 400, "image_address_refused"),
        ("POST", "/v1/responses", {"model": "old", "input": "hello"}, may, 400, "endpoint_not_served"),
        ("POST", CHAT, chat(), {}, 401, "invalid_api_key"),
        ("POST", CHAT, chat(), {"authorization": f"Bearer {narrow}"}, 403, "model_not_allowed"),
        ("POST", CHAT, chat(model="nothing"), may, 404, "model_not_found"),
        ("GET", "/v1/models/nothing", None, may, 404, "model_not_found"),
        ("GET", "/nothing", None, may, 404, "not_found"),
        ("POST", "/v1/nothing", {}, may, 404, "not_found"),
        ("DELETE", CHAT, None, may, 405, "method_not_allowed"),
        ("POST", "/livez", None, may, 405, "method_not_allowed"),
        ("POST", CHAT, b" " * (DATA_BYTES_MAX + 1), may, 413, "request_too_large"),
        ("POST", CHAT, chat("word " * 500), limited, 413, "request_exceeds_limit"),
        (
            "POST",
            CHAT,
            chat(tools=[tool("wide", **WIDE)]),
            {"authorization": f"Bearer {small}"},
            400,
            "instructions_exceed_limit",
        ),
        ("POST", CHAT, chat(), {**may, "content-encoding": "gzip"}, 415, "unsupported_encoding"),
        ("POST", CHAT, chat(sim={"status": 422}), may, 422, "upstream_refused"),
        ("GET", "/v1/models", None, {**may, "x-long": "x" * HEADER_BYTES_MAX}, 431, "headers_too_large"),
    ]


def _control_plane(stack: Stack, may: dict[str, str]) -> list[Case]:
    organization = stack.tenant().organization
    once = may | {"idempotency-key": "once"}
    assert stack.gateway.http().ask("POST", ADMIN, {"name": "once"}, once).status == 201
    return [
        ("POST", ADMIN, {"name": "mine"}, admin(stack.dsn, organization), 403, "forbidden"),
        ("POST", ADMIN, {"name": "other"}, once, 422, "idempotency_key_reused"),
        ("PATCH", f"{ADMIN}/{organization}", {"name": "new"}, may | {"if-match": '"old"'}, 412, "precondition_failed"),
        ("POST", ADMIN, b"{", may, 400, "invalid_request"),
        ("POST", ADMIN, {"name": 5}, may, 400, "invalid_request"),
        ("GET", f"{ADMIN}?limit=0", None, may, 400, "invalid_request"),
        ("GET", ADMIN, None, {}, 401, "invalid_api_key"),
        ("DELETE", "/admin/v1/keys/nothing", None, may, 404, "not_found"),
        ("GET", "/admin/v1/nothing", None, may, 404, "not_found"),
        ("PUT", ADMIN, None, may, 405, "method_not_allowed"),
        ("POST", "/openapi.json", None, may, 405, "method_not_allowed"),
        ("POST", ADMIN, b" " * (BODY_BYTES_MAX + 1), may, 413, "request_too_large"),
    ]
