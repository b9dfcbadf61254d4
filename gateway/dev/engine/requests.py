"""The request bodies that the engine reads, and the checks that vLLM makes on them.

Unknown fields are ignored, as are sampling parameters that mean nothing without a model (temperature, top_p, penalties,
logprobs, guided decoding). A field of the wrong type is a 400 that names its path.
"""

import re
from typing import Annotated, TypeVar

import msgspec
from msgspec import Meta, Raw

from gateway.dev.engine.behaviour import Overrides, explained
from gateway.dev.engine.errors import bad_request
from gateway.dev.engine.tokenizer import TOKEN_ID_MAX

CHOICES_MAX = 128
STOPS_MAX = 16

Positive = Annotated[int, Meta(ge=1)]
Stop = Annotated[str, Meta(min_length=1)]
_Ids = list[Annotated[int, Meta(ge=0, le=TOKEN_ID_MAX)]]
_Choices = Annotated[int, Meta(ge=1, le=CHOICES_MAX)]
Stops = str | Annotated[list[Stop], Meta(max_length=STOPS_MAX)] | None

_PATH = re.compile(r"at `\$\.(\w+)")
_MISSING = re.compile(r"missing required field `(\w+)`")

R = TypeVar("R")


class Part(msgspec.Struct):
    """One part of a message's content; whatever is not text is media and is kept as it came."""

    type: str
    text: str | None = None
    image_url: Raw = Raw(b"null")
    input_audio: Raw = Raw(b"null")


class CalledFunction(msgspec.Struct):
    """What the assistant called: `arguments` is JSON text, as it wrote it."""

    name: str
    arguments: str | None = None


class CalledTool(msgspec.Struct):
    """An entry of an assistant's `tool_calls`. The id is of no use to a model."""

    function: CalledFunction


class Message(msgspec.Struct):
    """One message of a conversation."""

    role: str
    content: str | list[Part] | None = None
    tool_calls: list[CalledTool] | None = None

    def text(self) -> str:
        """Return the message's text, the parts of it joined by line ends."""
        if isinstance(self.content, list):
            return "\n".join(part.text for part in self.content if part.text)
        return self.content or ""


class Function(msgspec.Struct):
    """A function that the model may call; `parameters` is its JSON schema as it came."""

    name: str
    description: str | None = None
    parameters: Raw = Raw(b"null")


class Tool(msgspec.Struct):
    """An entry of `tools`."""

    function: Function
    type: str = "function"


class NamedFunction(msgspec.Struct):
    """The function of a forced `tool_choice`."""

    name: str


class NamedToolChoice(msgspec.Struct):
    """A `tool_choice` that forces one tool."""

    function: NamedFunction


class StreamOptions(msgspec.Struct, frozen=True):
    """`stream_options`; continuous usage only counts together with `include_usage`, as in vLLM."""

    include_usage: bool = False
    continuous_usage_stats: bool = False


class GenerationRequest(msgspec.Struct, kw_only=True):
    """What chat and text completions have in common."""

    model: str
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    n: _Choices | None = 1
    seed: int | None = None
    stop: Stops = None
    include_stop_str_in_output: bool = False
    ignore_eos: bool = False
    cache_salt: str | None = None
    sim: Overrides | None = None

    def __post_init__(self) -> None:
        if self.stream_options is not None and not self.stream:
            raise ValueError("Stream options can only be defined when `stream=True`.")

    def stops(self) -> tuple[str, ...]:
        """Return the stop strings; an empty string stops nothing."""
        if isinstance(self.stop, str):
            return (self.stop,) if self.stop else ()
        return tuple(self.stop or ())


class ChatRequest(GenerationRequest, kw_only=True):
    """POST /v1/chat/completions."""

    messages: Annotated[list[Message], Meta(min_length=1)]
    tools: list[Tool] | None = None
    tool_choice: str | NamedToolChoice | None = None
    parallel_tool_calls: bool | None = True
    max_tokens: Positive | None = None
    max_completion_tokens: Positive | None = None


class CompletionRequest(GenerationRequest, kw_only=True):
    """POST /v1/completions. `max_tokens` is 16 where it is missing, as in OpenAI's interface."""

    prompt: str | list[str | int | _Ids]
    max_tokens: Positive | None = 16
    echo: bool | None = False


class EmbeddingRequest(msgspec.Struct, kw_only=True):
    """POST /v1/embeddings."""

    model: str
    input: str | list[str | int | _Ids]
    encoding_format: str = "float"
    dimensions: Annotated[int, Meta(ge=1, le=4096)] | None = None
    sim: Overrides | None = None


class TokenizeRequest(msgspec.Struct, kw_only=True):
    """POST /tokenize: a prompt or messages."""

    model: str | None = None
    prompt: str | None = None
    messages: list[Message] | None = None
    tools: list[Tool] | None = None
    return_token_strs: bool | None = False


def decode(body: bytes, kind: type[R]) -> R:
    """Return the body as `kind`. Raises EngineError 400 for invalid JSON and for a field that does not fit."""
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.ValidationError as error:
        raise bad_request(explained(str(error), kind), param=_field_of(str(error))) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise bad_request(f"the body is not valid JSON: {error}") from error


def _field_of(message: str) -> str | None:
    """Return the top-level field that a validation message complains of, if it names one."""
    found = _PATH.search(message) or _MISSING.search(message)
    return found[1] if found else None


def prompts_of(value: str | list[str | int | list[int]]) -> list[str | list[int]]:
    """Return the prompts in a `prompt` or `input`: text, texts, token ids or lists of token ids.

    Raises EngineError 400 when it is empty or mixes these.
    """
    if isinstance(value, str):
        return [value]
    ids = [item for item in value if isinstance(item, int)]
    if ids and len(ids) == len(value):
        if min(ids) < 0 or max(ids) > TOKEN_ID_MAX:
            raise bad_request("a token id is out of range", param="prompt")
        return [ids]
    prompts = [item for item in value if not isinstance(item, int)]
    if ids or not prompts:
        raise bad_request("expected text, texts, token ids or lists of token ids", param="prompt")
    return prompts
