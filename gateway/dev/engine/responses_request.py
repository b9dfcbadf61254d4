"""The body of POST /v1/responses, and how it becomes the conversation that the chat endpoint knows.

The conversion is vLLM's: instructions become the first message, a function call belongs to the assistant's message
before it, its output is a `tool` message, reasoning is left out. So the same conversation is the same prompt in either
dialect.
"""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Raw

from gateway.dev.engine.behaviour import Overrides
from gateway.dev.engine.errors import EngineError, bad_request
from gateway.dev.engine.requests import (
    CalledFunction,
    CalledTool,
    ChatRequest,
    Function,
    Message,
    NamedFunction,
    NamedToolChoice,
    Part,
    Positive,
    Stops,
    Tool,
)


class ItemPart(msgspec.Struct):
    """One part of an item's content: `input_text`, `output_text`, `input_image` …"""

    type: str
    text: str | None = None
    image_url: str | None = None


class Item(msgspec.Struct):
    """One item of `input`: a message (`type` may be missing), a function call, its output, or reasoning."""

    type: str = "message"
    role: Literal["user", "assistant", "system", "developer"] = "user"
    content: str | list[ItemPart] | None = None
    name: str = ""
    arguments: str | None = None
    output: str | list[ItemPart] = ""


class ResponsesTool(msgspec.Struct):
    """An entry of `tools`; only those of type `function` reach the model."""

    type: str
    name: str = ""
    description: str | None = None
    parameters: Raw = Raw(b"null")


class ResponsesToolChoice(msgspec.Struct):
    """A `tool_choice` that forces one tool."""

    type: str
    name: str = ""


class ResponsesRequest(msgspec.Struct, kw_only=True):
    """POST /v1/responses. Fields that are only sent back are kept as they came."""

    model: str
    input: str | Annotated[list[Item], Meta(min_length=1)]
    instructions: str | None = None
    max_output_tokens: Positive | None = None
    parallel_tool_calls: bool | None = True
    previous_response_id: str | None = None
    background: bool | None = False
    stream: bool | None = False
    stop: Stops = None
    include_stop_str_in_output: bool = False
    ignore_eos: bool = False
    seed: int | None = None
    cache_salt: str | None = None
    tools: list[Raw] = []
    tool_choice: str | ResponsesToolChoice = "auto"
    metadata: Raw = Raw(b"null")
    reasoning: Raw = Raw(b"null")
    text: Raw = Raw(b"null")
    temperature: float | None = None
    top_p: float | None = None
    sim: Overrides | None = None

    def chat(self) -> ChatRequest:
        """Return the request as the chat endpoint has it.

        Raises EngineError: 404 for a previous response, as nothing is stored, 400 for what is not simulated.
        """
        if self.previous_response_id is not None:
            message = f"Response with id '{self.previous_response_id}' not found."
            raise EngineError(404, message, param="previous_response_id")
        if self.background:
            raise bad_request("background is not simulated", param="background")
        tools = self._chat_tools()
        return ChatRequest(
            model=self.model,
            messages=self._conversation(),
            tools=tools or None,
            tool_choice=self._chat_choice(),
            parallel_tool_calls=self.parallel_tool_calls,
            max_tokens=self.max_output_tokens,
            stop=self.stop,
            include_stop_str_in_output=self.include_stop_str_in_output,
            ignore_eos=self.ignore_eos,
            seed=self.seed,
            cache_salt=self.cache_salt,
            stream=self.stream,
            sim=self.sim,
        )

    def _conversation(self) -> list[Message]:
        messages = [Message("system", self.instructions)] if self.instructions else []
        if isinstance(self.input, str):
            return [*messages, Message("user", self.input)]
        for item in self.input:
            _add(messages, item)
        return messages

    def _chat_tools(self) -> list[Tool]:
        try:
            tools = [msgspec.json.decode(tool, type=ResponsesTool) for tool in self.tools]
        except msgspec.ValidationError as error:
            raise bad_request(str(error), param="tools") from error
        return [
            Tool(Function(tool.name, tool.description, tool.parameters)) for tool in tools if tool.type == "function"
        ]

    def _chat_choice(self) -> str | NamedToolChoice:
        choice = self.tool_choice
        return choice if isinstance(choice, str) else NamedToolChoice(NamedFunction(choice.name))


def _add(messages: list[Message], item: Item) -> None:
    """Add an item to the conversation. What the assistant said and called in one turn is one message."""
    last = messages[-1] if messages and messages[-1].role == "assistant" else None
    if item.type == "message":
        parts = _parts(item.content)
        if item.role == "assistant" and last is not None and last.content is None:
            last.content = parts
        else:
            messages.append(Message(item.role, parts))
    elif item.type == "function_call":
        call = CalledTool(CalledFunction(item.name, item.arguments))
        if last is None:
            messages.append(Message("assistant", tool_calls=[call]))
        else:
            last.tool_calls = [*(last.tool_calls or ()), call]
    elif item.type == "function_call_output":
        messages.append(Message("tool", _parts(item.output)))
    elif item.type != "reasoning":
        raise bad_request(f"input items of type '{item.type}' are not simulated", param="input")


def _parts(content: str | list[ItemPart] | None) -> str | list[Part] | None:
    if content is None or isinstance(content, str):
        return content
    return [
        Part("text", part.text) if part.text is not None else Part(part.type, image_url=_address(part.image_url))
        for part in content
    ]


def _address(url: str | None) -> Raw:
    return Raw(msgspec.json.encode(url))
