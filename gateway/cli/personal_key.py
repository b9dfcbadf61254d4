"""The API key of a person at this machine, one for each tool: made at the first call, under a new text at later ones.

A key is found again by its name, such as `opencode on laptop`. Rotating it keeps its id, limits and usage; the text
before counts for a day more, so that work that runs goes on, and keys do not pile up.
"""

from __future__ import annotations

import datetime as dt
import socket
from typing import TYPE_CHECKING, Any, Final

from gateway.admin.times import parse_lifetime
from gateway.cli.answers import printable
from gateway.errors import ConfigError, InvalidRequest, NotFound

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from gateway.cli.api import Api

HOST_CHARS_MAX: Final = 100
TEAMS_TOLD_MAX: Final = 20


def personal_key(
    api: Api, tool: str, *, team: str | None, expires_in: str | None, choose: Callable[[Sequence[str]], str | None]
) -> str:
    """Return the text of this person's key for `tool` at this machine.

    Args:
        api: the gateway, as this person.
        tool: what the key is for; a part of its name.
        team: id or name of one of the person's teams; None: the only one, the one of the key there is, else as chosen.
        expires_in: how long the key is valid at the most, such as 90d; None: until it is revoked. One that there is
            ends then, if it would not end sooner: its holder cannot prolong it.
        choose: asks the person for one of several teams; returns None where nobody can be asked.

    Raises GatewayError, ConfigError where it cannot be made.
    """
    longest = None if expires_in is None else parse_lifetime(expires_in, "--expires-in")
    me = api.get("me")
    if me["kind"] != "user":
        raise ConfigError("an admin key is nobody's own: sign in as a person, or make a key with `penstock key create`")
    name = f"{tool} on {_host()}"
    held = [
        key
        for key in api.every("keys", user=me["id"], status="active", name=name)
        if key["name"] == name and key["user_id"] == me["id"]
    ]
    held.sort(key=lambda key: str(key["created_at"]))
    wanted = _team(me["teams"], team, held, choose)
    same = [key for key in held if key["team_id"] == wanted["id"]]
    if same:
        end = None if longest is None else dt.datetime.now(dt.UTC) + longest
        ends = same[-1]["expires_at"]
        if end is not None and (ends is None or end < dt.datetime.fromisoformat(ends)):
            api.patch("keys", same[-1]["id"], body={"expires_at": end})
        made = api.post("keys", same[-1]["id"], "rotate", body={})
    else:
        body = {"team": wanted["id"], "user": me["id"], "name": name, "expires_in": expires_in}
        made = api.post("keys", body=body)
    for older in held:
        if older["id"] != made["id"]:
            api.delete("keys", older["id"])
    return str(made["key"])


def _team(
    teams: Sequence[dict[str, Any]],
    wanted: str | None,
    held: Sequence[dict[str, Any]],
    choose: Callable[[Sequence[str]], str | None],
) -> dict[str, Any]:
    names = [str(team["name"]) for team in teams]
    told = printable(", ".join(names[:TEAMS_TOLD_MAX]))
    if not teams:
        raise ConfigError("you are in no team, and a key belongs to one: ask an administrator to add you to yours")
    if wanted is None and len(teams) == 1:
        return teams[0]
    if wanted is None and held:
        before = [team for team in teams if team["id"] == held[-1]["team_id"]]
        if before:
            return before[0]
    if wanted is None:
        wanted = choose(names)
        if wanted is None:
            raise InvalidRequest(f"you are in several teams: say which with --team ({told})", param="team")
    found = [team for team in teams if wanted in {team["id"], team["name"]}]
    if not found:
        raise NotFound(f"you are in no team {printable(wanted)!r}; yours are: {told}")
    return found[0]


def _host() -> str:
    return printable(socket.gethostname())[:HOST_CHARS_MAX].strip() or "this machine"
