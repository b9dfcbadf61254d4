"""The smallest requests of each endpoint, to be extended by what a test is about."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.support.http import DONE

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.support.http import Http


def chat(text: str = "say something", *, model: str = "sim", **fields: Any) -> dict[str, Any]:
    """Return a chat completion request."""
    return {"model": model, "messages": [{"role": "user", "content": text}], **fields}


def completion(prompt: object = "once upon a time", *, model: str = "sim", **fields: Any) -> dict[str, Any]:
    """Return a text completion request."""
    return {"model": model, "prompt": prompt, **fields}


def embedding(text: object = "a text", *, model: str = "sim", **fields: Any) -> dict[str, Any]:
    """Return an embedding request."""
    return {"model": model, "input": text, **fields}


def message(text: str = "say something", *, model: str = "sim", **fields: Any) -> dict[str, Any]:
    """Return a request of Anthropic's dialect."""
    return {"model": model, "max_tokens": 64, "messages": [{"role": "user", "content": text}], **fields}


def response(text: str = "say something", *, model: str = "sim", **fields: Any) -> dict[str, Any]:
    """Return a request of OpenAI's Responses."""
    return {"model": model, "input": text, **fields}


ENDPOINTS = {"chat/completions": chat, "completions": completion, "embeddings": embedding}
"""The request of each endpoint, by its address below the base URL."""


def tool(name: str, **properties: str) -> dict[str, Any]:
    """Return a tool whose parameters are all required, by name and JSON type."""
    schema = {
        "type": "object",
        "properties": {key: {"type": kind} for key, kind in properties.items()},
        "required": list(properties),
    }
    return {"type": "function", "function": {"name": name, "description": f"the {name} tool", "parameters": schema}}


def text_of(chunks: list[dict[str, Any]]) -> str:
    """Return the content that the chunks of a chat stream add up to, first choice only."""
    parts = [choice["delta"].get("content") or "" for chunk in chunks for choice in chunk["choices"]]
    return "".join(parts)


def finished(client: Http, path: str, request: Mapping[str, Any], headers: Mapping[str, str] | None = None) -> str:
    """Send a request, streamed or not, read its answer to the proper end and return its id."""
    if not request.get("stream"):
        answer = client.post(path, request, headers)
        assert answer.status == 200, answer
        return answer.request_id
    with client.stream(path, request, headers) as stream:
        assert list(stream.data())[-1] == DONE
        return stream.request_id
