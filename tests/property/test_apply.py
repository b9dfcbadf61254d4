"""Whatever a file declares: applied once, it leaves nothing to change; a dry run tells the same and does nothing."""

from __future__ import annotations

import asyncio
import datetime as dt
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from gateway.admin.apply import apply_document
from gateway.admin.apply_document import Document
from gateway.admin.apply_plan import Options, Run
from gateway.admin.scope import PLATFORM
from gateway.authenticate.key import Peppers

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gateway.admin.apply_plan import Change
    from gateway.admin.database import Database
    from tests.support.servers import Databases

PEPPERS = Peppers({})
YEAR = dt.datetime.now(dt.UTC).year + 2
"""Of moments that lie ahead, within the ten years that are allowed."""

names = st.sampled_from(["core", "web", "größe", "a~b", "a.b ~1", "[0]"])
people = st.sampled_from(["alice", "bob", "eve"])
models = st.sampled_from(["qwen", "sim"])
usd = st.decimals(0, 5_000_000, places=9).map("{:f}".format)
rates = st.decimals(0, 1000, places=6).map("{:f}".format)
count = st.integers(1, 10**12)


def optional(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({}, optional=fields)


values = optional(
    requests_per_minute=count,
    tokens_per_minute=count,
    input_tokens_per_minute=count,
    concurrent_requests=st.integers(1, 1_000_000),
    output_tokens_max=st.integers(1, 10_000_000),
    budget_day_usd=usd,
    budget_session_usd=usd,
)


@st.composite
def rules(draw: st.DrawFn) -> list[dict[str, Any]]:
    made = []
    for model in draw(st.lists(st.none() | models, min_size=1, max_size=3, unique=True)):
        rule = draw(values.filter(bool))
        if "tokens_per_minute" in rule and draw(st.booleans()):
            rule["tokens_burst"] = draw(count)
        if {"budget_day_usd", "budget_session_usd"} & rule.keys():
            rule["budget_stops_streams"] = draw(st.booleans())
        made.append(rule | {"model": model})
    return made


keys = optional(
    models=st.none() | st.lists(models, min_size=1),
    addresses=st.none() | st.lists(st.sampled_from(["10.0.0.0/8", "192.0.2.7", "2001:db8::/32"]), min_size=1),
    expires_at=st.none() | st.sampled_from([f"{YEAR}-01-01", f"{YEAR}-07-01T12:00Z", f"{YEAR}-07-01T12:00:00.5+02:00"]),
    limits=rules(),
)
webhooks: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {"url": st.sampled_from(["https://example.com/a", "https://example.com/b"])},
    optional={
        "events": st.lists(st.sampled_from(["budget.threshold", "key.revoked_used"]), min_size=1),
        "description": st.sampled_from(["", "for ops"]),
        "enabled": st.booleans(),
    },
)
prices: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {"model": models, "input": rates, "output": rates},
    optional={"request": rates, "cached_input": rates, "from": st.sampled_from([f"{YEAR}-01-01", f"{YEAR}-03-01"])},
)


@st.composite
def organizations(draw: st.DrawFn) -> dict[str, Any]:
    users = draw(
        st.dictionaries(
            people,
            st.none()
            | optional(role=st.sampled_from(["member", "organization_admin", "platform_admin"]), limits=rules()),
        )
    )
    roles = st.sampled_from(["member", "team_admin"])
    members = st.dictionaries(st.sampled_from(sorted(users)), roles) if users else st.just({})
    team = st.none() | optional(
        members=members, limits=rules(), keys=st.dictionaries(names, st.none() | keys, max_size=2)
    )
    return {
        "users": users,
        "limits": draw(rules() | st.just([])),
        "teams": draw(st.none() | st.dictionaries(names, team, max_size=3)),
        "webhooks": draw(st.none() | st.lists(webhooks, max_size=2, unique_by=lambda webhook: str(webhook["url"]))),
    }


def _which(price: Any) -> tuple[str, str | None]:
    return price["model"], price.get("from")


documents = st.fixed_dictionaries(
    {
        "organizations": st.fixed_dictionaries(
            {"acme": organizations()}, optional={"globex~1": st.none() | organizations()}
        ),
        "prices": st.lists(prices, max_size=3, unique_by=_which),
    }
)


@pytest.fixture(scope="module")
def dsn(databases: Databases) -> Iterator[str]:
    with databases.migrated() as made:
        yield made


async def changes(db: Database, document: dict[str, Any], *, dry_run: bool = False) -> list[Change]:
    """Apply a document and return what that changed."""
    run = Run(db, PLATFORM, PEPPERS, Options(prune=True, create_keys=True), lambda _models: None)
    return (await apply_document(run, Document.model_validate(document), dry_run=dry_run)).changes


@settings(max_examples=30, phases=[Phase.generate])  # to shrink one, a database would be asked for minutes
@given(first=documents, second=documents)
def test_what_is_applied_leaves_nothing_to_change(dsn: str, first: dict[str, Any], second: dict[str, Any]) -> None:
    async def check() -> None:
        connection = await asyncpg.connect(dsn)
        try:
            transaction = connection.transaction()
            await transaction.start()
            for document in (first, second):
                moved = {**document, "prices": document["prices"] if document is first else []}  # those never change
                count_sql = "SELECT count(*) FROM audit_event"
                before = await connection.fetchval(count_sql)
                told = await changes(connection, moved, dry_run=True)
                assert await connection.fetchval(count_sql) == before, "a dry run does nothing"
                done = await changes(connection, moved)
                assert [(change.action, change.path) for change in done] == [
                    (change.action, change.path) for change in told
                ]
                assert await changes(connection, moved) == []
            await transaction.rollback()
        finally:
            await connection.close()

    asyncio.run(check())
