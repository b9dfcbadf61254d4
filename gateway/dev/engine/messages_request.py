"""The body of POST /v1/messages, and how it becomes the conversation that the chat endpoint knows.

The conversion is vLLM's: the system prompt becomes the first message, each tool result a `tool` message before what
the user said with it, thinking is left out. So the same conversation is the same prompt in either dialect.
"""

from collections.abc import Iterable, Iterator
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Raw

from gateway.dev.engine.behaviour import Overrides
from gateway.dev.engine.errors import bad_request
from gateway.dev.engine.requests import (
    STOPS_MAX,
    CalledFunction,
    CalledTool,
    ChatRequest,
    Function,
    Message,
    NamedFunction,
    NamedToolChoice,
    Part,
    Positive,
    Stop,
    Tool,
)

# What Claude Code puts first into its system prompt: another one for each request, so vLLM leaves it out.
BILLING = "x-anthropic-billing-header"


class Source(msgspec.Struct):
    """Where an image comes from: an address, or its bytes."""

    type: str = "base64"
    media_type: str = "image/jpeg"
    data: str = ""
    url: str = ""

    def address(self) -> str:
        """Return the image as a URL."""
        return self.url if self.type == "url" else f"data:{self.media_type};base64,{self.data}"


class Block(msgspec.Struct):
    """One block of content: text, image, thinking, tool_use or tool_result; others are accepted and left out."""

    type: str
    text: str | None = None
    source: Source | None = None
    name: str | None = None
    input: Raw = Raw(b"{}")
    content: "str | list[Block] | None" = None


class Turn(msgspec.Struct):
    """One message."""

    role: Literal["user", "assistant", "system"]
    content: str | list[Block]


class MessagesTool(msgspec.Struct):
    """An entry of `tools`; `input_schema` is its JSON schema as it came."""

    name: str
    input_schema: Raw
    description: str | None = None


class MessagesToolChoice(msgspec.Struct):
    """`tool_choice`: `tool` forces the one that is named, `any` forces one."""

    type: Literal["auto", "any", "tool", "none"]
    name: str | None = None
    disable_parallel_tool_use: bool = False


class CountTokensRequest(msgspec.Struct, kw_only=True):
    """POST /v1/messages/count_tokens, and what /v1/messages has in common with it."""

    model: str
    messages: Annotated[list[Turn], Meta(min_length=1)]
    system: str | list[Block] | None = None
    tools: list[MessagesTool] | None = None
    tool_choice: MessagesToolChoice | None = None

    def conversation(self) -> list[Message]:
        """Return the messages as the chat endpoint has them, the system prompts joined in front."""
        system = [self.system or "", *(turn.content for turn in self.messages if turn.role == "system")]
        texts = [text for content in system for text in _texts(content) if not text.startswith(BILLING)]
        head = [Message("system", "".join(texts))] if texts else []
        return head + [message for turn in self.messages if turn.role != "system" for message in _messages(turn)]

    def chat_tools(self) -> list[Tool] | None:
        """Return the tools as the chat endpoint has them."""
        if self.tools is None:
            return None
        return [Tool(Function(tool.name, tool.description, tool.input_schema)) for tool in self.tools]


class MessagesRequest(CountTokensRequest, kw_only=True):
    """POST /v1/messages. `max_tokens` is required, as in Anthropic's interface; no `cache_salt` is read, as in vLLM."""

    max_tokens: Positive
    stop_sequences: Annotated[list[Stop], Meta(max_length=STOPS_MAX)] | None = None
    stream: bool | None = False
    sim: Overrides | None = None

    def chat(self) -> ChatRequest:
        """Return the request as the chat endpoint has it. Raises EngineError 400 for a choice that names no tool."""
        choice = self.tool_choice
        return ChatRequest(
            model=self.model,
            messages=self.conversation(),
            tools=self.chat_tools(),
            tool_choice=_chat_choice(choice) if choice is not None else None,
            parallel_tool_calls=choice is None or not choice.disable_parallel_tool_use,
            max_tokens=self.max_tokens,
            stop=self.stop_sequences,
            stream=self.stream,
            sim=self.sim,
        )


def _chat_choice(choice: MessagesToolChoice) -> str | NamedToolChoice:
    if choice.type == "tool":
        if not choice.name:
            raise bad_request("tool_choice.name is required when type is 'tool'", param="tool_choice")
        return NamedToolChoice(NamedFunction(choice.name))
    return "required" if choice.type == "any" else choice.type


def _texts(content: str | list[Block]) -> list[str]:
    if isinstance(content, str):
        return [content] if content else []
    return [block.text for block in content if block.type == "text" and block.text]


def _messages(turn: Turn) -> Iterator[Message]:
    """Yield the messages that one turn stands for: the results of tools first, then what was said."""
    if isinstance(turn.content, str):
        yield Message(turn.role, turn.content)
        return
    for block in turn.content:
        if block.type == "tool_result":
            yield from _results(block)
    parts = list(_parts(turn.content))
    calls = [
        CalledTool(CalledFunction(block.name or "", bytes(block.input).decode()))
        for block in turn.content
        if block.type == "tool_use"
    ]
    if parts or calls:
        yield Message(turn.role, parts or None, calls or None)


def _results(block: Block) -> Iterator[Message]:
    """Yield a tool's result: its text as a `tool` message, its images as the user's."""
    yield Message("tool", "\n".join(_texts(block.content or "")))
    images = [part for part in _parts(block.content or ()) if part.text is None]
    if images:
        yield Message("user", images)


def _parts(blocks: Iterable[Block] | str) -> Iterator[Part]:
    for block in () if isinstance(blocks, str) else blocks:
        if block.type == "text" and block.text:
            yield Part("text", block.text)
        elif block.type == "image" and block.source is not None:
            yield Part("image_url", image_url=Raw(msgspec.json.encode({"url": block.source.address()})))
