"""The data path in the OpenAPI document, which FastAPI makes of the control plane alone.

Only what the gateway itself reads or answers is described; all else of a body passes to the engine and back untouched,
so requests and answers are open objects.
"""

from __future__ import annotations

from typing import Any

from gateway.edge.body import MODEL_CHARS_MAX
from gateway.edge.bounds import CHOICES_MAX, OUTPUT_TOKENS_MAX

_TAG = "data path"
_ERROR = "#/components/schemas/GatewayError"
_ANTHROPIC_ERROR = "#/components/schemas/GatewayErrorForAnthropic"

_REFUSALS = {
    400: "Not understood, or refused by the engine as it stands; `param` names the field.",
    401: "No valid key.",
    403: "Not for this key.",
    404: "No such model, or its engines do not have this endpoint.",
    408: "The body did not arrive in time.",
    413: "The body, or what it would use, is larger than can ever be served.",
    415: "The body is compressed.",
    429: "A limit is spent, or every engine is busy.",
    431: "The head is too large.",
    502: "The engine failed.",
    503: "No engine, or no room for the request.",
    504: "The engine took too long.",
}
_STRING = {"type": "string"}
_TEXT_OR_NULL = {"type": ["string", "null"]}
_FLAG = {"type": ["boolean", "null"]}
_OUTPUT = {"type": ["integer", "null"], "minimum": 0, "maximum": OUTPUT_TOKENS_MAX}
_LIST = {"type": "array"}
_TEXT_OR_LIST = {"type": ["string", "array"]}
_CHOICES = {"type": ["integer", "null"], "minimum": 1, "maximum": CHOICES_MAX}
_OPTIONS = {"type": ["object", "null"], "properties": {"include_usage": _FLAG}}

_CHAT = {"messages": _LIST, "stream": _FLAG, "stream_options": _OPTIONS, "n": _CHOICES}
_TEXT = {"prompt": _TEXT_OR_LIST, "stream": _FLAG, "stream_options": _OPTIONS, "n": _CHOICES}
_BOUNDS = {"max_tokens": _OUTPUT, "max_completion_tokens": _OUTPUT}


def describe_data_path(document: dict[str, Any]) -> None:
    """Add the data path to an OpenAPI document, in place."""
    document["info"]["title"] = "Penstock"
    document["paths"] |= {
        "/v1/chat/completions": _post("create_chat_completion", "Chat", _CHAT | _BOUNDS, "messages"),
        "/v1/completions": _post("create_completion", "Complete a text", _TEXT | _BOUNDS, "prompt"),
        "/v1/embeddings": _post("create_embedding", "Embed texts", {"input": _TEXT_OR_LIST}, "input", streams=False),
        "/v1/messages": _post(
            "create_message",
            "Chat, in Anthropic's dialect",
            {"messages": _LIST, "stream": _FLAG, "max_tokens": _OUTPUT},
            "messages",
            error=_ANTHROPIC_ERROR,
        ),
        "/v1/messages/count_tokens": _post(
            "count_message_tokens",
            "Count what a message would use, in Anthropic's dialect",
            {"messages": _LIST},
            "messages",
            streams=False,
            error=_ANTHROPIC_ERROR,
        ),
        "/v1/responses": _post(
            "create_response",
            "Chat, as OpenAI's Responses; nothing is kept",
            {"input": _TEXT_OR_LIST, "stream": _FLAG, "max_output_tokens": _OUTPUT},
            "input",
        ),
        "/v1/models": {"get": _operation("list_served_models", "List what the key may use", _models_schema())},
        "/v1/models/{model}": {
            "get": _operation("show_served_model", "Show one model by its name or alias", _model_schema())
            | {"parameters": [{"name": "model", "in": "path", "required": True, "schema": {**_STRING, "minLength": 1}}]}
        },
    }
    components = document.setdefault("components", {})
    components.setdefault("securitySchemes", {}).update(
        {
            "Key": {"type": "http", "scheme": "bearer", "description": "A key; `penstock key create` makes one."},
            "KeyHeader": {"type": "apiKey", "in": "header", "name": "x-api-key", "description": "The same."},
        }
    )
    components.setdefault("schemas", {}).update(_error_schemas())


def _post(
    operation_id: str,
    summary: str,
    fields: dict[str, Any],
    prompt: str,
    *,
    streams: bool = True,
    error: str = _ERROR,
) -> dict[str, Any]:
    body = {
        "type": "object",
        "properties": {"model": {**_STRING, "maxLength": MODEL_CHARS_MAX}, **fields},
        "required": ["model", prompt],
        "additionalProperties": True,
    }
    operation = _operation(operation_id, summary, {"type": "object"}, error)
    operation["requestBody"] = {"required": True, "content": {"application/json": {"schema": body}}}
    if streams:
        events = {"schema": {"type": "string", "description": "Server-sent events, where `stream` is true."}}
        operation["responses"]["200"]["content"]["text/event-stream"] = events
    return {"post": operation}


def _operation(operation_id: str, summary: str, answer: dict[str, Any], error: str = _ERROR) -> dict[str, Any]:
    refusal = {"application/json": {"schema": {"$ref": error}}}
    headers = {"x-request-id": {"description": "The ledger's event id.", "required": True, "schema": _STRING}}
    refusals = {
        str(status): {"description": description, "headers": headers, "content": refusal}
        for status, description in _REFUSALS.items()
    }
    answered = {"description": "Done.", "headers": headers, "content": {"application/json": {"schema": answer}}}
    return {
        "operationId": operation_id,
        "summary": summary,
        "tags": [_TAG],
        "security": [{"Key": []}, {"KeyHeader": []}],
        "responses": {"200": answered, **refusals},
    }


def _model_schema() -> dict[str, Any]:
    tokens = {"type": ["integer", "null"], "minimum": 1}
    return {
        "type": "object",
        "properties": {
            "id": _STRING,
            "object": {"const": "model"},
            "created": {"type": "integer"},
            "owned_by": _STRING,
            "context_length": tokens,
            "max_model_len": tokens,
            "max_output_tokens": tokens,
            "aliases": {"type": "array", "items": _STRING},
            "capabilities": {"type": "object", "additionalProperties": {"type": "boolean"}},
        },
        "required": ["id", "object", "created", "owned_by"],
    }


def _models_schema() -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {"object": {"const": "list"}, "data": {"type": "array", "items": _model_schema()}},
        "required": ["object", "data"],
    }


def _error_schemas() -> dict[str, Any]:
    said = {
        "type": "object",
        "properties": {"message": _STRING, "type": _STRING, "param": _TEXT_OR_NULL, "code": _TEXT_OR_NULL},
        "required": ["message", "type", "param", "code"],
        "additionalProperties": False,
    }
    plain = {"type": "object", "properties": {"error": said}, "required": ["error"], "additionalProperties": False}
    anthropic = {
        "type": "object",
        "properties": {"type": {"const": "error"}, "error": said},
        "required": ["type", "error"],
        "additionalProperties": False,
    }
    return {_ERROR.rpartition("/")[2]: plain, _ANTHROPIC_ERROR.rpartition("/")[2]: anthropic}
