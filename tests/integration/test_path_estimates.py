"""What requests teach: told in metrics, kept for the replicas that come later, and cached prompts reserved for less."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.support.chat import chat
from tests.support.gateway import SIM_MODEL, GatewayProcess, write_config
from tests.support.ledger import all_closed, opened_events
from tests.support.tenants import make_tenant
from tests.support.waiting import wait_for

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.engine import EngineProcess

CHAT = "/v1/chat/completions"


def test_a_replica_begins_with_what_those_before_it_learnt(
    gateway: GatewayProcess, postgres_dsn: str, redis_url: str
) -> None:
    teacher, pupil = make_tenant(postgres_dsn), make_tenant(postgres_dsn)
    client = gateway.http(teacher.key)
    for _ in range(40):
        assert client.post(CHAT, chat(sim={"output_tokens": 20})).status == 200
    count = gateway.metrics()
    for kind in ("prompt", "completion"):
        assert count[f'penstock_estimate_quotient_count{{kind="{kind}",model="sim"}}'] == 40
    assert count['penstock_estimate_quotient_bucket{kind="completion",le="0.1",model="sim"}'] > 0, "512 at first"
    assert gateway.terminate() == 0
    with GatewayProcess(gateway.config, postgres_dsn, redis_url) as later:
        assert later.http(pupil.key).post(CHAT, chat()).status == 200
        (opened,) = opened_events(postgres_dsn, pupil)
        assert opened["estimate_completion_tokens"] < 400


def test_the_cached_share_of_a_session_is_reserved_for_less(
    engine: EngineProcess, postgres_dsn: str, redis_url: str, tmp_path: Path
) -> None:
    model = SIM_MODEL | {"weights": {"input": 1, "cached_input": 0, "output": 1}}
    config = write_config(tmp_path / "penstock.yaml", [engine.url], models={"sim": model})
    burst = 20_000
    tenant = make_tenant(postgres_dsn, tokens_per_minute=1, tokens_burst=burst)
    request = chat("a long story, told again: " + "word " * 3000, max_tokens=1)
    with GatewayProcess(config, postgres_dsn, redis_url) as running:
        client = running.http(tenant.key)
        left = []
        for session in ("one", "one", "one", "two"):
            answer = client.post(CHAT, request, {"x-session-id": session})
            assert answer.status == 200
            left.append(int(answer.headers["x-ratelimit-remaining-tokens"]))
            rows = wait_for(lambda: all_closed(postgres_dsn, tenant, len(left)), "it is closed")
        prompt = rows[0]["prompt_tokens"]
        assert max(row["cached_tokens"] for row in rows) > 0.9 * prompt
        assert burst - left[0] > 0.9 * prompt, "nothing is known at first"
        assert left[0] - left[1] > 0.6 * prompt, "nothing of it was cached the first time"
        assert left[2] > left[0] - 0.3 * prompt, "what was cached is not reserved again"
        assert left[2] - left[3] > 0.6 * prompt, "of another session nothing is known"
        assert running.terminate() == 0
