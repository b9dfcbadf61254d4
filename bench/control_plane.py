"""`python -m bench control-plane`: how long the control plane takes to read and to write where there are 100,000 keys.

A real gateway process is asked over HTTP, one request after the other, as a person or a script does; the times are
those that a caller sees, authentication, transaction, audit log and JSON included.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import asyncpg
import httpx2
from rich.table import Table

from bench.pinning import available_cores
from bench.servers import running_gateway, running_stack
from gateway.admin.credentials import create_admin_credential
from gateway.admin.database import transaction_on
from gateway.admin.memberships import add_member
from gateway.admin.scope import PLATFORM, MembershipRole
from gateway.authenticate.key import Peppers
from gateway.dev.files import free_port

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from rich.console import Console

CONTROL_PLANE: Final = "control-plane"
KEYS = 100_000
KEYS_MAX = 1_000_000
ORGANIZATIONS, TEAMS, USERS = 10, 20, 200
REQUESTS = 300
WARM_UP = 30
TARGET_MS = 20.0

# Without the triggers: a notification and an entry of the audit log for each key are no matter of this.
FILL: Final = """
SET session_replication_role = replica;
INSERT INTO organization (name) SELECT 'org-' || n FROM generate_series(1, {organizations}) AS n;
INSERT INTO team (organization_id, name)
SELECT id, 'team-' || n FROM organization, generate_series(1, {teams}) AS n WHERE name LIKE 'org-%';
INSERT INTO app_user (organization_id, name)
SELECT id, 'user-' || n FROM organization, generate_series(1, {users}) AS n WHERE name LIKE 'org-%';
INSERT INTO membership (organization_id, team_id, user_id)
SELECT t.organization_id, t.id, u.id FROM team t JOIN app_user u ON u.organization_id = t.organization_id
 WHERE right(u.name, 1) = right(t.name, 1) AND t.name LIKE 'team-%';
INSERT INTO api_key (organization_id, team_id, user_id, public_id, secret_hmac, pepper_version, name)
SELECT t.organization_id, t.id, u.id, left(md5(t.id::text || n), 16), decode(repeat('00', 32), 'hex'), 1, 'key ' || n
  FROM team t JOIN organization o ON o.id = t.organization_id
       CROSS JOIN generate_series(1, {keys_per_team}) AS n
       JOIN app_user u ON u.organization_id = o.id AND u.name = 'user-' || (1 + n % {users})
 WHERE o.name LIKE 'org-%';
INSERT INTO limit_rule (organization_id, level, subject_id, requests_per_minute)
SELECT organization_id, 'key', id, 100 FROM api_key WHERE name LIKE 'key %';
ANALYZE;
"""

Ask = tuple[str, str, dict[str, Any] | None]
"""A request: method, path below /admin/v1, body."""


def control_plane_options(arguments: Sequence[str]) -> argparse.Namespace:
    """Read the options of a measurement of the control plane."""
    parser = argparse.ArgumentParser(prog=f"python -m bench {CONTROL_PLANE}", description="Measure the control plane.")
    parser.add_argument("--keys", type=int, default=KEYS, help=f"keys in the database (default: {KEYS:,})")
    parser.add_argument("--requests", type=int, default=REQUESTS, help=f"requests of each kind (default: {REQUESTS})")
    parser.add_argument("--postgres-dsn", help="use this server (a database is made and dropped) and start none")
    parser.add_argument("--redis-url", help="use this server and start none")
    options = parser.parse_args(arguments)
    if not 1000 <= options.keys <= KEYS_MAX or not 10 <= options.requests <= 10_000:
        parser.error(f"--keys must be 1,000 to {KEYS_MAX:,}, --requests 10 to 10,000")
    return options


def measure_control_plane(console: Console, options: argparse.Namespace) -> int:
    """Fill a database, take the times of requests, print them; return 1 when one takes longer than it may."""
    with (
        tempfile.TemporaryDirectory(prefix="penstock-bench-") as folder,
        running_stack(Path(folder), options.postgres_dsn, options.redis_url) as stack,
    ):
        tokens, keys = asyncio.run(_filled(stack.postgres_dsn, options.keys))
        console.print(f"{options.keys:,} keys, each with a limit, in {ORGANIZATIONS} organizations", highlight=False)
        with running_gateway(stack, free_port(), available_cores(), Path(folder) / "gateway.log") as gateway:
            times = asyncio.run(_measured(gateway.port, tokens, keys, options.requests))
    table = Table("request", "p50 ms", "p99 ms", "slowest ms", box=None)
    for name, taken in times.items():
        table.add_row(name, *(f"{_at(taken, share):.1f}" for share in (0.5, 0.99, 1.0)))
    console.print(table)
    slow = [name for name, taken in times.items() if _at(taken, 0.99) > TARGET_MS]
    if slow:
        console.print(f"[bold red]failed[/] over {TARGET_MS:.0f} ms at p99: {', '.join(slow)}", highlight=False)
    return 1 if slow else 0


async def _filled(dsn: str, keys: int) -> tuple[dict[str, str], list[str]]:
    """Fill the database; return admin keys by role, and ids of keys of team-3 of the first organization."""
    connection = await asyncpg.connect(dsn)
    try:
        per_team = keys // (ORGANIZATIONS * TEAMS)
        await connection.execute(
            FILL.format(organizations=ORGANIZATIONS, teams=TEAMS, users=USERS, keys_per_team=per_team)
        )
        rows = await connection.fetch(
            """
            SELECT api_key.id FROM api_key JOIN team ON team.id = api_key.team_id
                JOIN organization ON organization.id = team.organization_id
            WHERE organization.name = 'org-1' AND team.name = 'team-3' ORDER BY api_key.id
            """
        )
    finally:
        await connection.close()
    async with transaction_on(dsn) as db:
        await add_member(
            db, PLATFORM, team="team-3", user="user-7", organization="org-1", role=MembershipRole.TEAM_ADMIN
        )
        made = {
            "platform": await create_admin_credential(db, PLATFORM, Peppers({})),
            "organization": await create_admin_credential(db, PLATFORM, Peppers({}), organization="org-1"),
            "team": await create_admin_credential(db, PLATFORM, Peppers({}), organization="org-1", user="user-7"),
        }
    return {role: each.key for role, each in made.items()}, [str(row["id"]) for row in rows]


def _kinds(keys: list[str]) -> dict[str, tuple[str, Callable[[int], Ask]]]:
    """Return the requests that are measured, by name: as whom, and the nth of them."""
    each = itertools.cycle(keys)
    half = len(keys) // 2
    return {
        "find a key": ("organization", lambda n: ("GET", f"keys/{keys[n % half]}", None)),
        "find a user by name": ("organization", lambda n: ("GET", f"users/user-{1 + n % USERS}", None)),
        "100 keys, the platform's": ("platform", lambda _: ("GET", f"keys?after={next(each)}", None)),
        "100 keys, an organization's": ("organization", lambda _: ("GET", f"keys?after={next(each)}", None)),
        "100 keys, a team administrator's": ("team", lambda _: ("GET", f"keys?after={next(each)}", None)),
        "keys by a part of the name": ("organization", lambda n: ("GET", f"keys?name=key%20{n % 100}&limit=20", None)),
        "keys of a user": ("organization", lambda n: ("GET", f"keys?user=user-{1 + n % USERS}", None)),
        "100 users of a team": ("organization", lambda n: ("GET", f"users?team=team-{1 + n % TEAMS}", None)),
        "100 limits, an organization's": ("organization", lambda _: ("GET", f"limits?after={next(each)}", None)),
        "100 limits, a team administrator's": ("team", lambda _: ("GET", "limits", None)),
        "limits of a key": ("organization", lambda n: ("GET", f"limits?level=key&subject={keys[n % half]}", None)),
        "make a key": ("team", lambda n: ("POST", "keys", {"team": "team-3", "name": f"made {n}"})),
        "set a limit": (
            "organization",
            lambda n: ("POST", "limits", {"level": "key", "subject": keys[n % half], "tokens_per_minute": 1000 + n}),
        ),
        "rename a key": ("organization", lambda n: ("PATCH", f"keys/{keys[n % half]}", {"name": f"renamed {n}"})),
        "revoke a key": ("organization", lambda n: ("DELETE", f"keys/{keys[half + n % half]}", None)),
    }


async def _measured(port: int, tokens: Mapping[str, str], keys: list[str], requests: int) -> dict[str, list[float]]:
    """Return for each kind of request how many milliseconds each took, the slowest last."""
    times: dict[str, list[float]] = {}
    async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}/admin/v1/", timeout=30.0) as client:
        for name, (role, ask) in _kinds(keys).items():
            client.headers["authorization"] = f"Bearer {tokens[role]}"
            for number in range(-WARM_UP, requests):
                took_ms = await _timed(client, ask(number))
                if number >= 0:
                    times.setdefault(name, []).append(took_ms)
            times[name].sort()
    return times


async def _timed(client: httpx2.AsyncClient, ask: Ask) -> float:
    method, path, body = ask
    began_s = time.perf_counter()
    answer = await client.request(method, path, json=body)
    took_ms = (time.perf_counter() - began_s) * 1000
    assert answer.is_success, f"{method} {path}: {answer.text}"
    return took_ms


def _at(taken: Sequence[float], share: float) -> float:
    """Return the time that this share of the requests, in order, has not exceeded."""
    return taken[min(len(taken) - 1, int(share * len(taken)))]
