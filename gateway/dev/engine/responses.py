"""POST /v1/responses: OpenAI's newer dialect, as vLLM serves it without a store.

The request is converted to a conversation of the chat endpoint and answered by the same life of a request; only what
comes in and what goes out are this dialect's own.
"""

from gateway.dev.engine.core import Engine
from gateway.dev.engine.generating import Incoming, converse
from gateway.dev.engine.http import Send
from gateway.dev.engine.requests import decode
from gateway.dev.engine.responses_request import ResponsesRequest
from gateway.dev.engine.wire_responses import ResponsesWire


async def responses(engine: Engine, incoming: Incoming, send: Send) -> None:
    """Answer a response. Raises EngineError before the answer starts, Broken where it is to be cut."""
    request = decode(incoming.body, ResponsesRequest)
    await converse(engine, incoming, request.chat(), ResponsesWire(request), send, param="input")
