"""What holds whichever server is behind the gateway: proper ends, one event a request, engines that stop when told."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from tests.real_engine.conftest import OUTPUT_MAX, PRICE, SHORT_OUTPUT_MAX, Stand
from tests.support.chat import chat, completion
from tests.support.http import DONE
from tests.support.ledger import all_closed, closed_event, cost_at
from tests.support.opencode import configuration, run_opencode
from tests.support.waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

CHAT = "/v1/chat/completions"
IDLE_S = 0.5
IDLE_SHARE_MAX = 0.2
STOPS_S_MAX = 5.0
OPENCODE_S_MAX = 110.0


def test_a_whole_answer_costs_what_the_engine_counted(any_engine: Stand) -> None:
    tenant = any_engine.stack.tenant()
    with any_engine.sdk(tenant) as client:
        answer = client.chat.completions.create(
            model="tiny", messages=[{"role": "user", "content": "hello"}], max_tokens=30
        )
    assert (answer.model, answer.choices[0].finish_reason) == ("tiny", "length")
    assert answer.choices[0].message.content
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 30
    (row,) = all_closed(any_engine.stack.dsn, tenant, 1)
    assert (row["prompt_tokens"], row["completion_tokens"]) == (answer.usage.prompt_tokens, 30)
    assert (row["status"], row["coverage"], row["streamed"]) == ("ok", "exact", False)
    assert row["cost_pico_usd"] == cost_at(PRICE | {"reasoning": PRICE["output"]}, row) > 0


@pytest.mark.parametrize("endpoint", ["chat/completions", "completions"])
def test_a_stream_ends_properly(any_engine: Stand, endpoint: str) -> None:
    request = chat if endpoint == "chat/completions" else completion
    client = any_engine.stack.client()
    with client.stream(f"/v1/{endpoint}", request(model="tiny", stream=True, max_tokens=30)) as stream:
        data = list(stream.data())
    assert data[-1] == DONE
    assert data.count(DONE) == 1
    assert not stream.cut
    row = closed_event(any_engine.stack.dsn, stream.request_id)
    assert (row["status"], row["streamed"], row["http_status"]) == ("ok", True, 200)


def test_the_sdk_reads_a_stream_and_its_usage(any_engine: Stand) -> None:
    """Whatever the engine says of its usage, who asks is told, and it is what the ledger holds."""
    tenant = any_engine.stack.tenant()
    with any_engine.sdk(tenant) as client:
        chunks = list(
            client.chat.completions.create(
                model="tiny",
                messages=[{"role": "user", "content": "hello"}],
                max_tokens=30,
                stream=True,
                stream_options={"include_usage": True},
            )
        )
    assert {chunk.model for chunk in chunks} == {"tiny"}
    assert [choice.finish_reason for chunk in chunks for choice in chunk.choices][-1] == "length"
    (usage,) = [chunk.usage for chunk in chunks if chunk.usage is not None]
    (row,) = all_closed(any_engine.stack.dsn, tenant, 1)
    assert (usage.prompt_tokens, usage.completion_tokens) == (row["prompt_tokens"], row["completion_tokens"])


def test_a_hang_up_stops_the_engine(any_engine: Stand) -> None:
    """Left alone, it would be busy for far longer than it is given to stop."""
    engine, client = any_engine.engine, any_engine.stack.client()
    started_s, before_s = time.monotonic(), engine.cpu_s()
    with client.stream(CHAT, chat(model="tiny", stream=True, max_tokens=OUTPUT_MAX)) as stream:
        pieces = [data for data, _ in zip(stream.data(), range(20), strict=False)]
        assert len(pieces) == 20
    busy_share = (engine.cpu_s() - before_s) / (time.monotonic() - started_s)
    wait_for(_idle(engine.cpu_s, busy_share * IDLE_SHARE_MAX), "the engine is idle", STOPS_S_MAX)
    row = closed_event(any_engine.stack.dsn, stream.request_id)
    assert (row["status"], row["coverage"]) == ("client_closed", "estimated")
    assert 10 <= row["completion_tokens"] < OUTPUT_MAX / 2


def test_the_next_request_is_served_after_a_hang_up(any_engine: Stand) -> None:
    client = any_engine.stack.client()
    with client.stream(CHAT, chat(model="tiny", stream=True, max_tokens=OUTPUT_MAX)) as stream:
        assert next(stream.data())
    answer = client.post(CHAT, chat(model="tiny", max_tokens=5))
    assert (answer.status, answer.document["usage"]["completion_tokens"]) == (200, 5)


def test_opencode_comes_to_an_end(any_engine: Stand, tmp_path: Path) -> None:
    """The model never ends by itself; the bound of penstock.yaml ends it."""
    tenant = any_engine.stack.tenant()
    config = configuration(any_engine.stack.gateway.base_url, tenant.key, ("brief",))
    run = run_opencode(tmp_path, "Say hello.", "--title", "a title", config=config, timeout_s=OPENCODE_S_MAX)
    assert (run.timed_out, run.code, run.errors) == (False, 0, []), run
    assert run.of_type("text")
    rows = all_closed(any_engine.stack.dsn, tenant, len(run.prompts))
    assert {row["status"] for row in rows} == {"ok"}
    assert all(row["prompt_tokens"] > 1000 and 0 < row["completion_tokens"] <= SHORT_OUTPUT_MAX for row in rows)
    assert run.prompts == [row["prompt_tokens"] for row in rows], "OpenCode shows what the ledger holds"


def _idle(cpu_s: Callable[[], float], share_max: float) -> Callable[[], bool]:
    """Return a condition: the processor time of the last IDLE_S is at most this share of it."""
    samples: list[tuple[float, float]] = []

    def met() -> bool:
        now_s, used_s = time.monotonic(), cpu_s()
        samples.append((now_s, used_s))
        old = [sample for sample in samples if sample[0] <= now_s - IDLE_S]
        if not old:
            return False
        return used_s - old[-1][1] <= share_max * (now_s - old[-1][0])

    return met
