"""`penstock engine replay` as a process: what it reports is what the engine counted, and what stops it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.command import Outcome, Penstock
from tests.support.engine import EngineProcess
from tests.support.scripted import ScriptedEngine, json_script, stream_script

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FAST = ("--speed", "100000", "--sessions", "4", "--output-scale", "0.01")
ANSWERED = stream_script(
    {"choices": [{"delta": {"content": "a"}, "finish_reason": "stop"}]},
    {"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 1}},
    "[DONE]",
)


@pytest.fixture(scope="module")
def engine() -> Iterator[EngineProcess]:
    with EngineProcess("sim") as running:
        yield running


@pytest.fixture
def scripted() -> Iterator[ScriptedEngine]:
    with ScriptedEngine() as running:
        yield running


def replayed(tmp_path: Path, url: str, *arguments: str, **variables: str) -> Outcome:
    command = ("engine", "replay", "--base-url", f"{url}/v1", "--model", "sim", *FAST, *arguments)
    return Penstock(tmp_path, variables)(*command)


@pytest.mark.parametrize("streamed", ["--stream", "--no-stream"])
def test_what_it_reports_is_what_the_engine_counted(engine: EngineProcess, tmp_path: Path, streamed: str) -> None:
    before, metrics_before = engine.counters(), engine.metrics()
    seed = str(len(streamed))
    report = replayed(tmp_path, engine.url, streamed, "--requests", "60", "--seed", seed, "--json").document
    after, metrics = engine.counters(), engine.metrics()
    assert (report["requests"], report["answered"], report["errors"]) == (60, 60, {})
    for name, counted in (
        ("prompt_tokens", "vllm:prompt_tokens_total"),
        ("completion_tokens", "vllm:generation_tokens_total"),
        ("cached_tokens", "vllm:prefix_cache_hits_total"),
    ):
        assert report[name] == metrics[counted] - metrics_before[counted] > 0
    assert after["finished"] - before["finished"] == 60
    assert report["cached_share"] > 0.5
    assert (report["ttft_ms"] is not None) is (streamed == "--stream")
    requests = engine.state()["requests"][-60:]
    sessions = {request["headers"]["x-session-id"] for request in requests}
    assert 4 < len(sessions) < 30
    assert all(request["body"]["max_tokens"] == request["generated_tokens"] for request in requests)


def test_people_are_shown_a_table(engine: EngineProcess, tmp_path: Path) -> None:
    done = replayed(tmp_path, engine.url, "--requests", "3")
    assert done.code == 0
    assert done.err == f"Sending to {engine.url}/v1, model sim: 4 sessions; ends after 3 requests or with Ctrl-C\n"
    assert "time to first token p99" in done.out
    assert done.out.partition("answered ")[2].split()[0] == "3"
    assert "of them cached" in done.out


def test_it_ends_when_its_time_is_up(engine: EngineProcess, tmp_path: Path) -> None:
    report = replayed(tmp_path, engine.url, "--duration", "0.5", "--json").document
    assert report["answered"] == report["requests"] > 0
    assert report["unfinished"] <= 4
    assert report["interrupted"] is False


def test_a_server_that_is_not_there_is_named(tmp_path: Path) -> None:
    done = replayed(tmp_path, "http://127.0.0.1:9", "--requests", "3")
    assert (done.code, done.out) == (1, "")
    assert "nothing answers at http://127.0.0.1:9/v1" in done.err
    assert "penstock engine --port" in done.err


@pytest.mark.parametrize("url", ["ftp://host", "host:80", "http://", "http://a b", "http://key@host", "http://h:99999"])
def test_what_is_no_base_url_is_refused(tmp_path: Path, url: str) -> None:
    done = replayed(tmp_path, url, "--requests", "3")
    assert (done.code, done.out) == (1, "")
    assert done.err.startswith("error: ")
    assert "Sending" not in done.err


def test_an_unknown_model_stops_it(engine: EngineProcess, tmp_path: Path) -> None:
    done = replayed(tmp_path, engine.url, "--requests", "30", "--model", "nobody")
    assert (done.code, done.out) == (1, "")
    assert "is 'nobody' (--model) served there" in done.err


def test_a_refused_key_stops_it_and_is_not_shown(scripted: ScriptedEngine, tmp_path: Path) -> None:
    key = "sk-a-key"
    scripted.script = json_script({"error": {"message": f"no such key: {key}"}}, 401)
    done = replayed(tmp_path, scripted.url, "--requests", "30", PENSTOCK_API_KEY=key)
    assert (done.code, done.out) == (1, "")
    assert "--api-key" in done.err
    assert key not in done.err


def test_a_429_is_waited_out_as_told_and_counted(scripted: ScriptedEngine, tmp_path: Path) -> None:
    refusal = json_script({"error": {"message": "slow down"}}, 429, retry_after="7", retry_after_ms="20")
    scripted.first, scripted.script = [refusal, refusal], ANSWERED
    report = replayed(tmp_path, scripted.url, "--requests", "4", "--json").document
    assert (report["requests"], report["answered"], report["errors"]) == (6, 4, {"429": 2})
    assert report["waited_s"] > 0.03
    assert report["prompt_tokens"] == 20
    assert len(scripted.bodies) == 6
    assert len(set(scripted.bodies)) == 4, "the same is sent again"


def test_failures_are_counted_by_what_they_were(scripted: ScriptedEngine, tmp_path: Path) -> None:
    broken = stream_script({"choices": [{"delta": {"content": "a"}}]}, whole=False)
    in_stream = stream_script({"error": {"message": "no"}}, "[DONE]")
    scripted.first = [ANSWERED, json_script({"error": {"message": "no"}}, 503), broken]
    scripted.first += [in_stream, stream_script({"choices": []}), json_script({})]
    scripted.script = ANSWERED
    report = replayed(tmp_path, scripted.url, "--requests", "9", "--json", "--sessions", "1").document
    assert report["answered"] == 4
    assert report["errors"] == {"503": 1, "broken off": 2, "in stream": 1, "unreadable": 1}


def test_failing_all_along_is_a_failure(scripted: ScriptedEngine, tmp_path: Path) -> None:
    scripted.script = json_script({"error": {"message": "out of order"}}, 500)
    done = replayed(tmp_path, scripted.url, "--requests", "5", "--json")
    report: Any = json.loads(done.out)
    assert (done.code, report["errors"]) == (1, {"500": 5})
    assert report["error_messages"] == {"500": "out of order"}
