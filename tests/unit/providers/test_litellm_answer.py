"""litellm's answers as OpenAI's bytes, and what it makes up told from what the provider said."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

from gateway.providers import litellm_answer as answers
from tests.unit.providers.models import Model, chunk


def answer(**fields: Any) -> Model:
    message = Model(role="assistant", content=None, tool_calls=[Model(id="t1", index=1)])
    choices = [Model(index=0, message=message, finish_reason="tool_calls")]
    return Model(**{"id": "a", "model": "m", "object": "chat.completion", "choices": choices} | fields)


def usage(prompt: int, completion: int, **details: Any) -> Model:
    return Model(prompt_tokens=prompt, completion_tokens=completion, **details)


def events(data: bytes) -> list[Any]:
    assert data.endswith(b"\n\n")
    bodies = [event.removeprefix(b"data: ") for event in data.split(b"\n\n") if event]
    return [body.decode() if body == b"[DONE]" else json.loads(body) for body in bodies]


def test_a_whole_answer_has_content_and_calls_without_an_index() -> None:
    fields = json.loads(answers.whole_json(answer(usage=usage(3, 4))))
    assert fields["choices"][0]["message"] == {"role": "assistant", "content": None, "tool_calls": [{"id": "t1"}]}
    assert fields["usage"] == {"prompt_tokens": 3, "completion_tokens": 4}


def test_zeros_that_stand_for_no_usage_are_left_out() -> None:
    assert "usage" not in json.loads(answers.whole_json(answer(usage=usage(0, 0))))
    assert "usage" not in json.loads(answers.whole_json(answer()))
    assert "usage" in json.loads(answers.whole_json(answer(usage=usage(2, 0))))


def test_a_whole_answer_can_be_a_stream_of_one_chunk() -> None:
    first, last, done = events(answers.whole_events(answer(usage=usage(3, 4))))
    assert first["object"] == "chat.completion.chunk"
    assert first["choices"] == [
        {
            "index": 0,
            "delta": {"role": "assistant", "content": None, "tool_calls": [{"id": "t1", "index": 0}]},
            "finish_reason": "tool_calls",
        }
    ]
    assert "usage" not in first
    assert (last["choices"], last["usage"]) == ([], {"prompt_tokens": 3, "completion_tokens": 4})
    assert done == "[DONE]"


def test_a_text_completion_can_be_a_stream_of_one_chunk() -> None:
    text = answer(object="text_completion", choices=[Model(index=0, text="hello", finish_reason="stop")])
    first, done = events(answers.whole_events(text))
    assert first["object"] == "text_completion"
    assert first["choices"] == [{"index": 0, "text": "hello", "finish_reason": "stop"}]
    assert done == "[DONE]"


def test_chunks_always_have_a_finish_reason() -> None:
    assert events(answers.chunk_event(chunk("hi")))[0]["choices"][0] == {
        "index": 0,
        "delta": {"content": "hi"},
        "finish_reason": None,
    }


def test_the_usage_chunk_has_no_choices_and_only_what_the_provider_said() -> None:
    last = chunk(usage=usage(3, 4, completion_tokens_details=Model(reasoning_tokens=2)))
    said = SimpleNamespace(chunks=[chunk("hi"), chunk(usage=usage(3, 4))])
    (found,) = events(answers.usage_event(last, said))
    assert (found["choices"], found["usage"]) == ([], {"prompt_tokens": 3, "completion_tokens": 4})
    said.chunks.append(chunk(usage=usage(3, 4, completion_tokens_details=Model(reasoning_tokens=1))))
    (found,) = events(answers.usage_event(last, said))
    assert found["usage"]["completion_tokens_details"] == {"reasoning_tokens": 2}


def test_tokens_that_litellm_counted_itself_are_no_usage() -> None:
    last = chunk(usage=usage(3, 4))
    assert answers.usage_event(last, SimpleNamespace(chunks=[chunk("hi")])) == b""
    assert answers.usage_event(last, SimpleNamespace()) == b""


def test_an_end_that_litellm_made_up_is_a_cut() -> None:
    assert answers.was_cut(SimpleNamespace(received_finish_reason=None, intermittent_finish_reason=None))
    assert not answers.was_cut(SimpleNamespace(received_finish_reason="stop", intermittent_finish_reason=None))
    assert not answers.was_cut(SimpleNamespace(received_finish_reason=None, intermittent_finish_reason="stop"))
    assert not answers.was_cut(SimpleNamespace())
    assert answers.is_finished(chunk(finish_reason="stop"))
    assert not answers.is_finished(chunk("hi"))
