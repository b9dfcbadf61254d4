"""When an answer calls a tool, which one, and with what arguments."""

import json
from typing import Any

import msgspec
import pytest

from gateway.dev.engine.errors import EngineError
from gateway.dev.engine.requests import ChatRequest, decode
from gateway.dev.engine.tools import calls_for

BASH = {
    "type": "object",
    "properties": {
        "command": {"type": "string"},
        "description": {"type": "string"},
        "timeout": {"type": "number"},
    },
    "required": ["command", "description"],
}


def asked(content: Any, parameters: Any = BASH, role: str = "user", **fields: Any) -> ChatRequest:
    names = fields.pop("names", ("bash",))
    tools = [{"type": "function", "function": {"name": name, "parameters": parameters}} for name in names]
    body = {"model": "m", "messages": [{"role": role, "content": content}], "tools": tools, **fields}
    return decode(msgspec.json.encode(body), ChatRequest)


def arguments(content: Any, **fields: Any) -> list[Any]:
    return [json.loads(call.arguments) for call in calls_for(asked(content, **fields))]


@pytest.mark.parametrize(
    "content",
    [
        'call bash {"command": "ls"}',
        'Please CALL the tool `bash` with {"command": "ls"} now',
        'call bash {\\"command\\": \\"ls\\"}',
        '"call bash {\\"command\\": \\"ls\\"}"',
        [{"type": "text", "text": "well,"}, {"type": "text", "text": 'call the function bash {"command": "ls"}'}],
    ],
)
def test_call_name_json(content: Any) -> None:
    assert arguments(content) == [{"command": "ls"}]


def test_several_calls_unless_the_request_forbids_it() -> None:
    content = 'call bash {"command": "a"} and call read {"path": "b"}'
    names = ("read", "bash")
    calls = calls_for(asked(content, names=names))
    assert [(call.name, json.loads(call.arguments)) for call in calls] == [
        ("bash", {"command": "a"}),
        ("read", {"path": "b"}),
    ]
    assert len({call.id for call in calls}) == 2
    assert len(calls_for(asked(content, names=names, parallel_tool_calls=False))) == 1


@pytest.mark.parametrize(
    "content",
    ["Use the bash tool to run: echo hello", '"use the `bash` tool to run: echo hello"', "use bash tool: echo hello"],
)
def test_prose_fills_the_required_texts_of_the_schema(content: str) -> None:
    assert arguments(content) == [{"command": "echo hello", "description": "echo hello"}]


@pytest.mark.parametrize(
    ("content", "fields"),
    [
        ("call bash", {}),
        ("call bash {not json}", {}),
        ('call other {"a": 1}', {}),
        ('call bash {"a": 1}', {"tool_choice": "none"}),
        ('call bash {"a": 1}', {"role": "tool"}),
        ('call bash {"a": 1}', {"names": ()}),
        ("hello", {"tool_choice": "auto"}),
        (None, {}),
    ],
)
def test_everything_else_is_answered_with_text(content: Any, fields: dict[str, Any]) -> None:
    assert arguments(content, **fields) == []


def test_tool_choice_forces_a_call() -> None:
    forced = {"type": "function", "function": {"name": "read"}}
    calls = calls_for(asked("hello", names=("bash", "read"), tool_choice=forced))
    assert [(call.name, json.loads(call.arguments)["command"]) for call in calls] == [("read", "hello")]
    assert [call.name for call in calls_for(asked("hi", names=("bash", "read"), tool_choice="required"))] == ["bash"]


@pytest.mark.parametrize("choice", ["sometimes", {"type": "function", "function": {"name": "missing"}}])
def test_a_tool_choice_that_means_nothing_is_refused(choice: Any) -> None:
    with pytest.raises(EngineError) as refused:
        calls_for(asked("hello", tool_choice=choice))
    assert (refused.value.status, refused.value.param) == (400, "tool_choice")


def test_made_arguments_fit_the_schema() -> None:
    parameters = {
        "properties": {
            "mode": {"enum": ["fast", "slow"]},
            "limit": {"type": "integer", "minimum": -5, "exclusiveMinimum": 0},
            "deep": {"type": "object", "properties": {"x": {"type": ["null", "string"]}}, "required": ["x"]},
            "many": {"type": "array", "items": {"type": "string"}, "minItems": 2},
            "either": {"anyOf": [{"type": "boolean"}, {"type": "string"}]},
            "fixed": {"const": 7},
            "left_out": {"type": "string"},
        },
        "required": ["mode", "limit", "deep", "many", "either", "fixed"],
    }
    assert arguments("hi", parameters=parameters, tool_choice="required") == [
        {"mode": "fast", "limit": 1, "deep": {"x": None}, "many": ["hi", "hi"], "either": False, "fixed": 7}
    ]


def test_a_schema_that_refers_to_itself_by_depth_ends() -> None:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(50):
        schema = {"type": "object", "properties": {"a": schema}, "required": ["a"]}
    assert len(json.dumps(arguments("hi", parameters=schema, tool_choice="required"))) < 200


@pytest.mark.parametrize("parameters", [{"properties": 3, "required": ["a"]}, {"required": 1, "type": "object"}])
def test_a_broken_schema_is_the_callers_fault(parameters: Any) -> None:
    with pytest.raises(EngineError) as refused:
        calls_for(asked("hi", parameters=parameters, tool_choice="required"))
    assert refused.value.status == 400


@pytest.mark.parametrize("parameters", [None, True, []])
def test_a_tool_without_a_schema_gets_no_arguments(parameters: Any) -> None:
    assert arguments("hi", parameters=parameters, tool_choice="required") == [{}]
