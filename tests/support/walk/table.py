"""What the walk knows of each operation: what it refers to, and what each role gets for what is its own.

Whoever adds an operation adds it here: `refs` says where it names things and of which kind ("path.team", "query.user",
"body.subject"), `body`, `query` and `path` give the rest of a request that succeeds, the statuses are those of a
platform, an organization, a team administrator and a member, in this order. Query parameters that name nothing are in
PLAIN.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

from tests.support.walk.world import ROLES, TEAM_ADMIN

POOL: Final = "local"
PLAIN: Final = frozenset(
    {"limit", "after", "before", "name", "role", "level", "model", "status", "active", "spending", "past", "since"}
    | {"until", "by", "bucket", "order", "format", "engine", "session", "kind", "action", "actor"}
    | {"dry_run", "prune", "create_keys", "unchecked_models"}
)
"""Query parameters that name nothing of a tenant, or, as a part of a name does, only narrow what is in reach anyway."""


@dataclass(frozen=True)
class Operation:
    """One way to call an operation. `reaches`: (role, slot) for which a neighbour is in reach all the same."""

    refs: dict[str, str] = field(default_factory=dict)
    body: dict[str, Any] | None = None
    query: dict[str, str] = field(default_factory=dict)
    path: dict[str, str] = field(default_factory=dict)
    statuses: tuple[int, int, int, int] = (200, 200, 200, 200)
    reaches: frozenset[tuple[str, str]] = frozenset()
    public: bool = False

    def status(self, role: str) -> int:
        """Return what a role gets for what is its own."""
        return self.statuses[ROLES.index(role)]


_ALL_MADE = (201, 201, 201, 201)
_PLATFORM = (200, 403, 403, 403)
_ORGANIZATION = (200, 200, 403, 403)
_TEAM = (200, 200, 200, 403)
_IN_ORGANIZATION = {"query.organization": "organization"}
_TEAM_PATH = {"path.team": "team", **_IN_ORGANIZATION}
_USER_PATH = {"path.user": "user", **_IN_ORGANIZATION}
_MEMBER_PATH = {"path.team": "team", "path.user": "user", **_IN_ORGANIZATION}
_LIMIT_LEVELS = {"organization": _PLATFORM, "team": _ORGANIZATION, "user": _ORGANIZATION, "key": _TEAM}
_RATE = {"requests_per_minute": 5}
_DECLARED_PRICE = {"model": "new", "input": "1", "output": "2"}
_PRICE = {"model": "new", "input": "1", "output": "2", "unchecked_model": True}

OPERATIONS: Final[dict[str, tuple[Operation, ...]]] = {
    "get_me": (Operation(),),
    "list_organizations": (Operation(),),
    # What a document names is tried in tests/integration/test_apply.py.
    "apply": (
        Operation({}, {"organizations": {"new": None}}, statuses=_PLATFORM),
        Operation({}, {"prices": [_DECLARED_PRICE]}, query={"unchecked_models": "true"}, statuses=_PLATFORM),
    ),
    "create_organization": (Operation(body={"name": "new"}, statuses=(201, 403, 403, 403)),),
    "get_organization": (Operation({"path.organization": "organization"}),),
    "update_organization": (Operation({"path.organization": "organization"}, {"name": "new"}, statuses=_PLATFORM),),
    "delete_organization": (Operation({"path.organization": "organization"}, statuses=_PLATFORM),),
    "list_teams": (Operation(_IN_ORGANIZATION),),
    "create_team": (Operation({"body.organization": "organization"}, {"name": "new"}, statuses=(201, 201, 403, 403)),),
    "get_team": (Operation(_TEAM_PATH),),
    "update_team": (Operation(_TEAM_PATH, {"name": "new"}, statuses=_ORGANIZATION),),
    "delete_team": (Operation(_TEAM_PATH, statuses=_ORGANIZATION),),
    "list_members": (Operation(_TEAM_PATH),),
    "add_member": (
        # A team's administrator takes in whom it can name, of the whole organization.
        Operation(
            {"path.team": "team", "body.user": "user", "body.organization": "organization"},
            {},
            statuses=_TEAM,
            reaches=frozenset({(TEAM_ADMIN, "body.user")}),
        ),
        Operation(
            {"path.team": "team", "body.user": "user", "body.organization": "organization"},
            {"role": "team_admin"},
            statuses=_ORGANIZATION,
        ),
    ),
    "get_member": (Operation(_MEMBER_PATH),),
    "update_member": (Operation(_MEMBER_PATH, {"role": "team_admin"}, statuses=_ORGANIZATION),),
    "remove_member": (Operation(_MEMBER_PATH, statuses=_TEAM),),
    "list_users": (
        Operation(_IN_ORGANIZATION),
        Operation({"query.team": "team", **_IN_ORGANIZATION}),
    ),
    "create_user": (
        Operation(
            {"body.organization": "organization", "body.teams": "team"},
            {"name": "new"},
            statuses=(201, 201, 403, 403),
        ),
        Operation(
            {"body.organization": "organization", "body.teams": "team"},
            {"name": "new", "role": "platform_admin"},
            statuses=(201, 403, 403, 403),
        ),
    ),
    "get_user": (Operation(_USER_PATH),),
    "update_user": (
        Operation(_USER_PATH, {"name": "new"}, statuses=_ORGANIZATION),
        Operation(_USER_PATH, {"role": "organization_admin"}, statuses=_ORGANIZATION),
        Operation(_USER_PATH, {"role": "platform_admin"}, statuses=_PLATFORM),
    ),
    "delete_user": (Operation(_USER_PATH, statuses=_ORGANIZATION),),
    "list_admin_keys": (Operation(_IN_ORGANIZATION), Operation({"query.user": "user", **_IN_ORGANIZATION})),
    "create_admin_key": (
        Operation({"body.organization": "organization"}, {}, statuses=_ALL_MADE),
        Operation(
            {"body.organization": "organization", "body.user": "user"},
            {"expires_in": "7d"},
            statuses=(201, 201, 403, 201),
        ),
        Operation({}, {"expires_in": "91d"}, statuses=(201, 201, 400, 400)),
    ),
    "get_admin_key": (Operation({"path.admin_key": "admin_key"}),),
    "revoke_admin_key": (Operation({"path.admin_key": "admin_key"}),),
    "list_keys": (
        Operation(_IN_ORGANIZATION),
        Operation({"query.team": "team", "query.user": "user", **_IN_ORGANIZATION}),
    ),
    "create_key": (
        Operation(
            {"body.team": "team", "body.user": "user", "body.organization": "organization"}, {}, statuses=_ALL_MADE
        ),
        Operation(
            {"body.team": "team", "body.user": "user", "body.organization": "organization"},
            _RATE,
            statuses=(201, 201, 201, 403),
        ),
    ),
    "read_key": (Operation({"path.key": "key"}),),
    "update_key": (
        Operation({"path.key": "key"}, {"name": "new"}),
        Operation({"path.key": "key"}, {"models": None}, statuses=_TEAM),
    ),
    "revoke_key": (Operation({"path.key": "key"}),),
    "rotate_key": (Operation({"path.key": "key"}, {}),),
    "list_limits": (
        Operation(_IN_ORGANIZATION, query={"spending": "true"}),
        Operation({"query.subject": "team", **_IN_ORGANIZATION}, query={"level": "team", "spending": "true"}),
        Operation({"query.subject": "user", **_IN_ORGANIZATION}, query={"level": "user"}),
        Operation({"query.subject": "key", **_IN_ORGANIZATION}, query={"level": "key"}),
        Operation({"query.subject": "organization", **_IN_ORGANIZATION}, query={"level": "organization"}),
    ),
    "set_limit": tuple(
        Operation(
            {"body.subject": level, "body.organization": "organization"}, {"level": level, **_RATE}, statuses=statuses
        )
        for level, statuses in _LIMIT_LEVELS.items()
    ),
    "clear_limit": tuple(
        Operation({"query.subject": level, **_IN_ORGANIZATION}, query={"level": level}, statuses=statuses)
        for level, statuses in _LIMIT_LEVELS.items()
    ),
    "get_limit": (Operation({"path.limit": "limit"}),),
    "update_limit": (Operation({"path.limit": "limit"}, _RATE, statuses=_TEAM),),
    "delete_limit": (Operation({"path.limit": "limit"}, statuses=_TEAM),),
    "list_prices": (Operation(),),
    "set_price": (Operation(body=_PRICE, statuses=(201, 403, 403, 403)),),
    "list_pools": (Operation(),),
    "get_pool": (Operation(path={"pool": POOL}),),
    "report_usage": (
        Operation(_IN_ORGANIZATION, query={"by": "key", "since": "7d"}),
        Operation(
            {"query.team": "team", "query.user": "user", "query.key": "key", **_IN_ORGANIZATION},
            query={"by": "user", "since": "7d"},
        ),
    ),
    "list_statements": (Operation(_IN_ORGANIZATION, statuses=_ORGANIZATION),),
    "show_statement": (Operation(_IN_ORGANIZATION, path={"month": "2026-01"}, statuses=_ORGANIZATION),),
    # There is nothing to close here: what is closed is in the tests of statements.
    "close_statement": (
        Operation({"body.organization": "organization"}, {"month": "2026-01"}, statuses=(409, 403, 403, 403)),
    ),
    "list_audit_events": (
        Operation(_IN_ORGANIZATION, statuses=_ORGANIZATION),
        Operation({"query.subject": "key", **_IN_ORGANIZATION}, statuses=_ORGANIZATION),
    ),
    "list_webhooks": (Operation(_IN_ORGANIZATION, statuses=_ORGANIZATION),),
    "create_webhook": (
        Operation(
            {"body.organization": "organization"},
            {"url": "https://hooks.example/"},
            statuses=(201, 201, 403, 403),
        ),
    ),
    "show_webhook": (Operation({"path.webhook": "webhook"}, statuses=_ORGANIZATION),),
    "change_webhook": (Operation({"path.webhook": "webhook"}, {"enabled": False}, statuses=_ORGANIZATION),),
    "delete_webhook": (Operation({"path.webhook": "webhook"}, statuses=_ORGANIZATION),),
    "rotate_webhook_secret": (Operation({"path.webhook": "webhook"}, {}, statuses=_ORGANIZATION),),
    "test_webhook": (Operation({"path.webhook": "webhook"}, statuses=(202, 202, 403, 403)),),
    "redeliver_webhook": (
        Operation({"path.webhook": "webhook", "path.delivery": "delivery"}, statuses=(202, 202, 403, 403)),
    ),
    # Where no identity provider is configured, nobody signs in: those who do are in the tests of signing in.
    "sign_in_config": (Operation(public=True),),
    "sign_in": (Operation(body={"id_token": "a.b.c"}, statuses=(404, 404, 404, 404), public=True),),
    "sign_in_token": (Operation(statuses=(404, 404, 404, 404), public=True),),
    "sign_in_device": (Operation(statuses=(404, 404, 404, 404), public=True),),
    "sign_out": (Operation(),),
}
