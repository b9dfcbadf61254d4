"""API keys over HTTP: list and read them, make, change, rotate and revoke them. The text of a key is answered once."""

from dataclasses import asdict, dataclass, field
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query

from gateway.admin.key_changes import GRACE_DEFAULT, rotate_key, update_key
from gateway.admin.keys import (
    ApiKey,
    KeyFilter,
    KeyStatus,
    NewApiKey,
    create_key,
    find_key,
    list_keys,
    revoke_key,
)
from gateway.admin.limits import Subject, set_limit
from gateway.admin.routes.call import AdminDep, AdminRoute
from gateway.admin.routes.context import Listing, OrganizationQuery, PageDep
from gateway.admin.routes.key_bodies import CREATED_EXAMPLE, KEY_EXAMPLE, ChangedKey, KeyRotation, NewKey
from gateway.admin.times import parse_duration, parse_lifetime
from gateway.domain.principal import Level
from gateway.errors import InvalidRequest

router = APIRouter(prefix="/keys", tags=["keys"], route_class=AdminRoute)

_Key = Annotated[str, Path(max_length=200, description="Id or public id of the key.")]


def _answers(status: int, example: dict[str, Any], **documented: str) -> dict[int | str, dict[str, Any]]:
    """Return what the OpenAPI document shows for an answer, with what its headers say."""
    headers = {name: {"description": said, "schema": {"type": "string"}} for name, said in documented.items()}
    return {status: {"content": {"application/json": {"example": example}}, "headers": headers}}


_TAGGED = "Of the key as it is answered: send it back in If-Match."


@dataclass(frozen=True, slots=True)
class CreatedKeyShown(ApiKey):
    """A key just made; `key` is shown only now."""

    key: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class RotatedKeyShown(ApiKey):
    """A key under a new secret; `key` is shown only now.

    The text before counts until `previous_expires_at`. `older_ended`: one from before that would still have counted,
    and has ended now.
    """

    key: str = field(repr=False)
    older_ended: bool


@router.get(
    "",
    operation_id="list_keys",
    responses=_answers(200, {"data": [KEY_EXAMPLE], "next_after": None}),
)
async def index(
    admin: AdminDep,
    page: PageDep,
    organization: OrganizationQuery = None,
    team: Annotated[str | None, Query(max_length=200, description="Id or name of one team.")] = None,
    user: Annotated[str | None, Query(max_length=200, description="Id or name of one user.")] = None,
    status: Annotated[KeyStatus | None, Query(description="Only keys with this status.")] = None,
    name: Annotated[str | None, Query(max_length=200, description="Part of the name, in either case.")] = None,
    model: Annotated[str | None, Query(max_length=200, description="A model that the keys may use.")] = None,
) -> Listing[ApiKey]:
    """List keys, without their secrets: all of the organization, of teams that one administers, and one's own."""
    wanted = KeyFilter(organization, team, user, status, name, model)
    return Listing[ApiKey].of(await list_keys(admin.db, admin.scope, page, wanted), page)


@router.post("", status_code=201, operation_id="create_key", responses=_answers(201, CREATED_EXAMPLE, ETag=_TAGGED))
async def create(admin: AdminDep, wanted: NewKey) -> CreatedKeyShown:
    """Make a key, and show it this once.

    Members make keys of their own in teams that they are in, without limits: those are for administrators of the team.
    """
    new = NewApiKey(
        team=wanted.team,
        organization=wanted.organization,
        user=wanted.user,
        name=wanted.name,
        models=None if wanted.models is None else tuple(wanted.models),
        addresses=None if wanted.addresses is None else tuple(wanted.addresses),
        expires_in=None if wanted.expires_in is None else parse_lifetime(wanted.expires_in),
    )
    limits = wanted.values()
    if wanted.limits_model is not None and not limits:
        raise InvalidRequest("limits_model needs a limit, such as tokens_per_minute", param="limits_model")
    admin.control.check_models(new.models or (), param="models", unchecked=wanted.unchecked_model)
    named = () if wanted.limits_model is None else (wanted.limits_model,)
    admin.control.check_models(named, param="limits_model", unchecked=wanted.unchecked_model)
    made = await create_key(admin.db, admin.scope, admin.control.peppers, new)
    if limits:
        admin.scope.require_team(made.about.team_id, "set limits of a key")
        subject = Subject(Level.KEY, str(made.about.id))
        await set_limit(admin.db, admin.scope, subject, limits, model=wanted.limits_model)
    return CreatedKeyShown(**asdict(admin.tagged(made.about)), key=made.key)


@router.get("/{key}", operation_id="read_key", responses=_answers(200, KEY_EXAMPLE, ETag=_TAGGED))
async def read(admin: AdminDep, key: _Key) -> ApiKey:
    """Read one key, without its secret."""
    return admin.tagged(await find_key(admin.db, admin.scope, key))


@router.patch("/{key}", operation_id="update_key", responses=_answers(200, KEY_EXAMPLE, ETag=_TAGGED))
async def update(admin: AdminDep, key: _Key, wanted: ChangedKey) -> ApiKey:
    """Change what is given; null takes a value away. It acts within a second on every replica.

    Whoever holds a key may change its name; the rest is for administrators of its team.
    """
    change = wanted.change()
    if isinstance(change.models, tuple):
        admin.control.check_models(change.models, param="models", unchecked=wanted.unchecked_model)
    admin.check_match(await find_key(admin.db, admin.scope, key, lock=True))
    return admin.tagged(await update_key(admin.db, admin.scope, key, change))


@router.post(
    "/{key}/rotate",
    operation_id="rotate_key",
    responses=_answers(200, CREATED_EXAMPLE | {"older_ended": False}, ETag=_TAGGED),
)
async def rotate(admin: AdminDep, key: _Key, wanted: KeyRotation | None = None) -> RotatedKeyShown:
    """Give a key a new secret, shown this once; its id, limits and usage stay. The text before counts for the grace.

    A key has two texts at most: rotated again within a grace, the oldest ends at once, and `older_ended` says so.
    """
    given = None if wanted is None else wanted.grace
    grace = GRACE_DEFAULT if given is None else parse_duration(given, "grace")
    admin.check_match(await find_key(admin.db, admin.scope, key, lock=True))
    rotated = await rotate_key(admin.db, admin.scope, admin.control.peppers, key, grace=grace)
    about = asdict(admin.tagged(rotated.about))
    return RotatedKeyShown(**about, key=rotated.key, older_ended=rotated.older_ended)


@router.delete(
    "/{key}",
    operation_id="revoke_key",
    responses=_answers(200, KEY_EXAMPLE | {"status": "revoked", "revoked_at": "2026-08-02T09:30:00Z"}, ETag=_TAGGED),
)
async def revoke(admin: AdminDep, key: _Key) -> ApiKey:
    """Revoke a key, both of its texts, for ever and within a second; harmless when it is revoked already."""
    admin.check_match(await find_key(admin.db, admin.scope, key, lock=True))
    return admin.tagged(await revoke_key(admin.db, admin.scope, key))
