"""API keys over HTTP: list them, make one (its text is answered this once), and revoke one."""

from dataclasses import asdict, dataclass, field
from typing import Annotated

from fastapi import APIRouter, Path, Query
from pydantic import Field

from gateway.admin.keys import ApiKey, NewApiKey, create_key, list_keys, revoke_key
from gateway.admin.limits import Subject, set_limit
from gateway.admin.names import MODELS_MAX
from gateway.admin.routes.call import AdminDep, AdminRoute
from gateway.admin.routes.context import Listing, OrganizationQuery, PageDep, Reference
from gateway.admin.routes.limit_fields import WantedLimits
from gateway.admin.times import parse_lifetime
from gateway.domain.principal import Level
from gateway.errors import InvalidRequest

router = APIRouter(prefix="/keys", tags=["keys"], route_class=AdminRoute)


class NewKey(WantedLimits):
    """What a key is made of. `user` null: a service key. `models` null: every model. `expires_in` like 30d, 12h.

    The limits given are of the one model `limits_model`, or of all. `unchecked_model` takes names of models that
    penstock.yaml does not have.
    """

    team: Reference
    organization: Reference | None = None
    user: Reference | None = None
    name: str = ""
    models: Annotated[list[str], Field(max_length=MODELS_MAX)] | None = None
    expires_in: Annotated[str, Field(max_length=20)] | None = None
    limits_model: str | None = None
    unchecked_model: bool = False


@dataclass(frozen=True, slots=True)
class CreatedKeyShown(ApiKey):
    """A key just made; `key` is shown only now."""

    key: str = field(repr=False)


@router.get("", operation_id="list_keys")
async def index(
    admin: AdminDep,
    page: PageDep,
    organization: OrganizationQuery = None,
    team: Annotated[str | None, Query(max_length=200, description="Id or name of one team.")] = None,
) -> Listing[ApiKey]:
    """List keys, without their secrets."""
    return Listing[ApiKey].of(await list_keys(admin.db, admin.scope, page, organization=organization, team=team), page)


@router.post("", status_code=201, operation_id="create_key")
async def create(admin: AdminDep, wanted: NewKey) -> CreatedKeyShown:
    """Make a key, and show it this once."""
    new = NewApiKey(
        team=wanted.team,
        organization=wanted.organization,
        user=wanted.user,
        name=wanted.name,
        models=None if wanted.models is None else tuple(wanted.models),
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
        key = Subject(Level.KEY, str(made.about.id))
        await set_limit(admin.db, admin.scope, key, limits, model=wanted.limits_model)
    return CreatedKeyShown(**asdict(made.about), key=made.key)


@router.delete("/{key}", operation_id="revoke_key")
async def revoke(admin: AdminDep, key: Annotated[str, Path(max_length=200)]) -> ApiKey:
    """Revoke a key (id or public id), for ever; harmless when it is revoked already."""
    return await revoke_key(admin.db, admin.scope, key)
