"""The small parts of the runner: reading the load client's answer, requests, ledger totals, scenarios."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

import pytest

from bench.errors import BenchError
from bench.ledger import LedgerTotals
from bench.pair import EngineSpec, LoadSpec, parse_result
from bench.payloads import chat_body, http_request, write_request
from bench.scenarios import SCENARIOS, select
from tests.unit.bench.samples import load_result

if TYPE_CHECKING:
    from pathlib import Path


def test_reads_what_the_load_client_prints() -> None:
    expected = load_result()
    assert parse_result(json.dumps({**asdict(expected), "body_bytes": 1, "transit_us": None})).transit_us is None
    assert parse_result(json.dumps(asdict(expected))) == expected


@pytest.mark.parametrize("text", ["", "{}", "[1]", "not json", '{"seconds": 1}'])
def test_refuses_what_is_not_a_result(text: str) -> None:
    with pytest.raises(BenchError, match="printed no result"):
        parse_result(text)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("body_bytes", [400, 2_000, 100_000])
def test_bodies_have_the_size_asked_for(body_bytes: int, stream: bool) -> None:  # noqa: FBT001 - a case
    body = chat_body("m", body_bytes, stream=stream)
    assert len(body) == body_bytes
    assert json.loads(body)["stream"] is stream


def test_a_body_too_small_for_a_request_is_refused() -> None:
    with pytest.raises(ValueError, match="too few"):
        chat_body("m", 20, stream=False)


def test_requests_state_the_length_of_their_body() -> None:
    head, _, body = http_request(b"{}", "sk-key").partition(b"\r\n\r\n")
    assert b"content-length: 2" in head
    assert b"authorization: Bearer sk-key" in head
    assert body == b"{}"


def test_a_request_file_is_private_since_it_holds_a_key(tmp_path: Path) -> None:
    path = write_request(tmp_path / "new" / "request.http", "m", "sk-key", 500, stream=False)
    assert path.stat().st_mode & 0o777 == 0o600


def test_totals_of_a_scenario_are_differences() -> None:
    assert LedgerTotals(5, 4, 3, 20, 10).since(LedgerTotals(1, 1, 1, 5, 5)) == LedgerTotals(4, 3, 2, 15, 5)


def test_flags_appear_only_when_set() -> None:
    assert "--lockstep" not in EngineSpec().arguments()
    assert "--lockstep" in EngineSpec(lockstep=True).arguments()
    assert "--stream" not in LoadSpec(1).arguments()
    assert "--stream" in LoadSpec(1, stream=True).arguments()


def test_scenarios_are_chosen_by_name() -> None:
    assert select([]) == SCENARIOS
    assert [scenario.name for scenario in select(["streams-paced", "answers-2k"])] == ["streams-paced", "answers-2k"]
    assert len({scenario.name for scenario in SCENARIOS}) == len(SCENARIOS)
    with pytest.raises(KeyError):
        select(["nonsense"])
