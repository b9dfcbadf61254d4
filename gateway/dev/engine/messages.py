"""POST /v1/messages and /v1/messages/count_tokens: Anthropic's dialect, as vLLM serves it.

The request is converted to a conversation of the chat endpoint and answered by the same life of a request; only what
comes in and what goes out are this dialect's own.
"""

import msgspec

from gateway.dev.engine.core import Engine
from gateway.dev.engine.errors import EngineError, type_name
from gateway.dev.engine.generating import Incoming, converse
from gateway.dev.engine.http import Send, respond
from gateway.dev.engine.messages_request import CountTokensRequest, MessagesRequest
from gateway.dev.engine.prompt import render_chat
from gateway.dev.engine.requests import decode
from gateway.dev.engine.tokenizer import count_tokens
from gateway.dev.engine.wire_messages import MessagesWire

PATH = "/v1/messages"


async def messages(engine: Engine, incoming: Incoming, send: Send) -> None:
    """Answer a message. Raises EngineError before the answer starts, Broken where it is to be cut."""
    request = decode(incoming.body, MessagesRequest)
    await converse(engine, incoming, request.chat(), MessagesWire(request.model, incoming.request_id), send)


async def count_message_tokens(engine: Engine, body: bytes, send: Send) -> None:
    """Answer with the tokens that the prompt of such a message has; nothing is generated or cached."""
    request = decode(body, CountTokensRequest)
    engine.check_model(request.model)
    tokens = count_tokens(render_chat(request.conversation(), request.chat_tools()))
    answer = {"input_tokens": tokens, "context_management": {"original_input_tokens": tokens}}
    await respond(send, 200, msgspec.json.encode(answer))


def error_body(error: EngineError) -> bytes:
    """Return an error as this dialect has it; the type is vLLM's own (`BadRequestError`), as there."""
    said = {"type": type_name(error.status), "message": error.message}
    return msgspec.json.encode({"type": "error", "error": said})
