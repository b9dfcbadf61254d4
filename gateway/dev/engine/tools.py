"""Which tools an answer calls, and with what arguments.

A call is asked for in the last message, when that is the user's: `call NAME {json}` (also `call the tool NAME with
{json}`, several times for several calls), or in prose, `use the NAME tool to …: VALUE`, where the arguments are made
from the tool's schema with VALUE in its first required text. `tool_choice` forces a call likewise. Anything else is
answered with text, so a `tool` message always ends the round.
"""

import json
import re
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from gateway.dev.engine.errors import bad_request
from gateway.dev.engine.requests import ChatRequest, NamedToolChoice, Tool

CALLS_MAX = 16
SCHEMA_DEPTH_MAX = 8
ITEMS_MAX = 16
# The part of a message that is searched: a pasted file is no order.
ORDER_CHARS_MAX = 65_536

_CALL = re.compile(
    r"\bcall (?:the )?(?:tool |function )?[`'\"]?([\w.:/-]+)[`'\"]? ?(?:with |tool with )?(?=\{)", re.IGNORECASE
)
_USE = re.compile(r"\buse (?:the )?[`'\"]?([\w.:/-]+)[`'\"]? tool\b([^:\n]{0,200}):\s*([^\n]+)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class ToolCall:
    """One call: its id, the function's name, and its arguments as JSON text."""

    id: str
    name: str
    arguments: str


def calls_for(request: ChatRequest) -> list[ToolCall]:
    """Return the calls that the answer to `request` makes; empty when it is to be text.

    Raises EngineError 400 when `tool_choice` names a tool that is not among `tools`.
    """
    tools = {tool.function.name: tool for tool in request.tools or ()}
    choice = request.tool_choice
    last = request.messages[-1]
    if isinstance(choice, NamedToolChoice):
        if choice.function.name not in tools:
            raise bad_request("tool_choice names a tool that is not in tools", param="tool_choice")
        tools = {choice.function.name: tools[choice.function.name]}
    elif choice not in (None, "auto", "none", "required"):
        raise bad_request("tool_choice must be auto, none, required or a function", param="tool_choice")
    if not tools or choice == "none":
        return []
    order = last.text()[-ORDER_CHARS_MAX:] if last.role == "user" else ""
    calls = list(_ordered(order, tools))
    if not calls and (isinstance(choice, NamedToolChoice) or choice == "required"):
        tool = next(iter(tools.values()))
        calls = [_call(tool, _made_arguments(tool, order.strip()))]
    return calls[: 1 if request.parallel_tool_calls is False else CALLS_MAX]


def _ordered(order: str, tools: Mapping[str, Tool]) -> Iterator[ToolCall]:
    found = False
    for match in _CALL.finditer(order):
        if match[1] in tools and (arguments := _json_at(order, match.end())) is not None:
            found = True
            yield _call(tools[match[1]], arguments)
    if found:
        return
    for match in _USE.finditer(order):
        if match[1] in tools:
            tool = tools[match[1]]
            yield _call(tool, _made_arguments(tool, match[3].strip().strip("\"'`")))


def _json_at(text: str, start: int) -> dict[str, Any] | None:
    """Return the object at `start`, also where its quotes are escaped: OpenCode quotes what is typed at its prompt."""
    for candidate in (text[start:], text[start:].replace('\\"', '"')):
        try:
            value, _ = json.JSONDecoder().raw_decode(candidate)
        except (ValueError, RecursionError):
            continue
        return value if isinstance(value, dict) else None
    return None


def _call(tool: Tool, arguments: Mapping[str, Any]) -> ToolCall:
    text = json.dumps(arguments, ensure_ascii=False)
    return ToolCall(f"chatcmpl-tool-{uuid.uuid4().hex}", tool.function.name, text)


def _made_arguments(tool: Tool, value: str) -> dict[str, Any]:
    """Return arguments that the tool's schema accepts, with `value` in every required text.

    Raises EngineError 400 when `parameters` are no JSON schema.
    """
    try:
        schema = msgspec.json.decode(tool.function.parameters)
        made = _made(schema, value, SCHEMA_DEPTH_MAX) if isinstance(schema, dict) else {}
    except (AttributeError, TypeError, LookupError) as error:
        raise bad_request(f"the parameters of {tool.function.name} are no JSON schema", param="tools") from error
    return made if isinstance(made, dict) else {}


def _made(schema: Any, value: str, depth: int) -> Any:
    """Return something that fits `schema`: const, default, enum, anyOf, type, required, minItems, minimum."""
    if not isinstance(schema, dict) or depth == 0:
        return value
    given = [schema[key] for key in ("const", "default") if key in schema] or schema.get("enum")
    if given:
        return given[0]
    options = schema.get("anyOf") or schema.get("oneOf") or schema.get("allOf")
    if options:
        return _made(options[0], value, depth - 1)
    kind = schema.get("type")
    if isinstance(kind, list):
        kind = next(iter(kind), None)
    if kind == "object" or "properties" in schema:
        properties = schema.get("properties") or {}
        required: Sequence[str] = schema.get("required") or ()
        return {name: _made(properties.get(name), value, depth - 1) for name in required}
    if kind == "array":
        return [_made(schema.get("items"), value, depth - 1) for _ in range(min(schema.get("minItems", 0), ITEMS_MAX))]
    if kind in ("number", "integer"):
        return max(0, schema.get("minimum", 0), schema.get("exclusiveMinimum", -1) + 1)
    return {"boolean": False, "null": None}.get(str(kind), value)
