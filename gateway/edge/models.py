"""GET /v1/models and /v1/models/{id}: what the key may use, with what clients ask of a model's size and abilities."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from gateway.edge.asgi import send_json
from gateway.edge.completions import request_headers
from gateway.edge.identity import identify
from gateway.errors import ModelNotFound

if TYPE_CHECKING:
    from uuid import UUID

    from gateway.domain.config import ModelConfig
    from gateway.edge.asgi import Receive, Scope, Send
    from gateway.edge.stages import Stages

MODEL_CHARS_MAX = 256


def describe(model: ModelConfig, name: str) -> dict[str, object]:
    """Return a model as OpenAI lists it, under the name (or alias) that was asked for, with what else is known."""
    return {
        "id": name,
        "object": "model",
        "created": 0,
        "owned_by": "penstock",
        "context_length": model.context_tokens,
        "max_model_len": model.context_tokens,
        "max_output_tokens": model.output_tokens,
        "aliases": list(model.aliases),
        "capabilities": {
            "tools": model.capabilities.tools,
            "reasoning": model.capabilities.reasoning,
            "images": model.capabilities.images,
        },
    }


class ListModels:
    """All models that the key may use, by name; aliases are told with their model."""

    def __init__(self, stages: Stages) -> None:
        self._stages = stages

    async def __call__(
        self, scope: Scope, receive: Receive, send: Send, headers: dict[bytes, bytes], event_id: UUID
    ) -> None:
        principal = await identify(self._stages, scope, headers)
        models = [
            describe(model, name) for name, model in self._stages.config.models.items() if principal.may_use(name)
        ]
        body = msgspec.json.encode({"object": "list", "data": models})
        await send_json(send, 200, body, request_headers(event_id))


class ShowModel:
    """One model by name or alias; one that the key may not use does not exist for it."""

    def __init__(self, stages: Stages) -> None:
        self._stages = stages

    async def __call__(
        self, scope: Scope, receive: Receive, send: Send, headers: dict[bytes, bytes], event_id: UUID
    ) -> None:
        principal = await identify(self._stages, scope, headers)
        name = scope["path"].partition("/models/")[2][: MODEL_CHARS_MAX + 1]
        model = self._stages.config.by_name.get(name)
        if model is None or not principal.may_use(model.name):
            raise ModelNotFound(
                f"there is no model '{name[:MODEL_CHARS_MAX]}'; GET /v1/models lists yours", param="model"
            )
        await send_json(send, 200, msgspec.json.encode(describe(model, name)), request_headers(event_id))
