"""Service keys of a team, known by their names, brought to what a document declares.

The text of a key is shown once, so a file cannot make one unseen: it has to be asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gateway.admin.apply_document import DeclaredKey
from gateway.admin.apply_limits import Rules, apply_limits
from gateway.admin.apply_plan import MadeKey, Run, at, every
from gateway.admin.key_changes import KeyChange, update_key
from gateway.admin.keys import ApiKey, KeyFilter, NewApiKey, create_key, list_keys, revoke_key
from gateway.admin.limit_values import REMOVED
from gateway.admin.names import quoted
from gateway.admin.networks import checked_networks
from gateway.domain.principal import Level
from gateway.errors import Conflict

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gateway.admin.teams import Team

_FIELDS = ("models", "addresses", "expires_at")


async def apply_keys(
    run: Run, team: Team, declared: Mapping[str, DeclaredKey | None] | None, rules: Rules, place: tuple[str, ...]
) -> None:
    """Bring the service keys of a team to what is declared. Keys that persons hold are never looked at."""
    if declared is None:
        return
    wanted = KeyFilter(organization=str(team.organization_id), team=str(team.id))
    found = await every(lambda page: list_keys(run.db, run.scope, page, wanted))
    present = [key for key in found if key.user_id is None and key.status != "revoked" and key.name]
    for name, one in declared.items():
        same = [key for key in present if key.name == name]
        with at(*place, "keys", name):
            key = await _apply_key(run, team, name, one or DeclaredKey(), same)
        path = (team.organization, team.name, name)
        subject = (Level.KEY, key.id)
        limits = None if one is None else one.limits
        await apply_limits(run, rules, subject, limits, path=path, place=(*place, "keys", name))
    for key in present if run.options.prune else ():
        if key.name not in declared:
            with at(*place, "keys"):
                await revoke_key(run.db, run.scope, str(key.id))
                run.deleted("key", (team.organization, team.name, key.name), {"public_id": key.public_id})


async def _apply_key(run: Run, team: Team, name: str, wanted: DeclaredKey, same: list[ApiKey]) -> ApiKey:
    if len(same) > 1:
        ids = ", ".join(key.public_id for key in same[:5])
        raise Conflict(f"team {quoted(team.name)} has several service keys named {quoted(name)} ({ids}): rename some")
    after = _declared(wanted)
    run.check_models(after.get("models") or ())
    if not same:
        return await _make(run, team, name, after)
    before = {field: _plain(getattr(same[0], field)) for field in after}
    names = [field for field in after if before[field] != after[field]]
    if not names:
        return same[0]
    change = KeyChange(**{field: REMOVED if after[field] is None else after[field] for field in names})
    changed = await update_key(run.db, run.scope, str(same[0].id), change)
    path = (team.organization, team.name, name)
    run.changed("key", path, {field: before[field] for field in names}, {field: after[field] for field in names})
    return changed


async def _make(run: Run, team: Team, name: str, after: dict[str, Any]) -> ApiKey:
    if not run.options.create_keys:
        raise Conflict(
            f"team {quoted(team.name)} has no service key named {quoted(name)}, and the text of a key is shown only"
            f" when it is made: penstock key create --org … --team … --name …, or apply with --create-keys"
        )
    run.scope.require_team(team.id, "make service keys")  # a member's would be its own, and another at each time
    new = NewApiKey(
        team=str(team.id), name=name, models=after.get("models"), addresses=after.get("addresses"), expires_in=None
    )
    made = await create_key(run.db, run.scope, run.peppers, new)
    about = made.about
    if after.get("expires_at") is not None:
        about = await update_key(run.db, run.scope, str(about.id), KeyChange(expires_at=after["expires_at"]))
    run.made_keys.append(MadeKey(team.organization, team.name, name, made.key))
    shown = {field: value for field, value in after.items() if value is not None}
    run.created("key", (team.organization, team.name, name), shown)
    return about


def _declared(wanted: DeclaredKey) -> dict[str, Any]:
    """Return the fields that are held, as the key will have them."""
    values: dict[str, Any] = {field: getattr(wanted, field) for field in _FIELDS if field in wanted.model_fields_set}
    if values.get("models") is not None:
        values["models"] = tuple(dict.fromkeys(values["models"]))
    if values.get("addresses") is not None:
        values["addresses"] = tuple(str(network) for network in checked_networks(values["addresses"]))
    return values


def _plain(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
