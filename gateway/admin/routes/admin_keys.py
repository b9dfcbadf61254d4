"""Admin keys over HTTP: of the platform, of an organization, or of a person, who makes and revokes its own."""

from dataclasses import asdict, dataclass, field
from typing import Annotated, TypeAlias

from fastapi import APIRouter, Path, Query
from pydantic import Field

from gateway.admin.credentials import (
    AdminCredential,
    create_admin_credential,
    find_admin_credential,
    list_admin_credentials,
    revoke_admin_credential,
)
from gateway.admin.routes.call import AdminDep, AdminRoute
from gateway.admin.routes.context import Listing, NameQuery, OrganizationQuery, PageDep, Reference, Wanted
from gateway.admin.times import parse_lifetime

router = APIRouter(prefix="/admin-keys", tags=["admin keys"], route_class=AdminRoute)

_AdminKey: TypeAlias = Annotated[str, Path(max_length=200, description="Id, in either form.")]


class NewAdminKey(Wanted):
    """What an admin key is made of: it reaches what the `user` does, or all of the `organization`, or what the caller
    does. `expires_in` like 30d, 12h; who administers no organization gets 30 days, and 90 at most.
    """

    name: str = ""
    organization: Reference | None = None
    user: Reference | None = None
    expires_in: Annotated[str, Field(max_length=20)] | None = None


@dataclass(frozen=True, slots=True)
class CreatedAdminKey(AdminCredential):
    """An admin key just made; `key` is shown only now."""

    key: str = field(repr=False)


@router.get("", operation_id="list_admin_keys")
async def index(
    admin: AdminDep,
    page: PageDep,
    organization: OrganizationQuery = None,
    user: Annotated[str | None, Query(max_length=200, description="Those of this user alone (id or name).")] = None,
    name: NameQuery = None,
    active: Annotated[bool, Query(description="Only those that count.")] = False,  # noqa: FBT002 - a query parameter
) -> Listing[AdminCredential]:
    """List admin keys, without their secrets: a person's own, or all of the organization, or all."""
    found = await list_admin_credentials(
        admin.db, admin.scope, page, organization=organization, user=user, name=name, active=active
    )
    return Listing[AdminCredential].of(found, page)


@router.post("", status_code=201, operation_id="create_admin_key")
async def create(admin: AdminDep, wanted: NewAdminKey) -> CreatedAdminKey:
    """Make an admin key, and show it this once. It never reaches further than the caller."""
    made = await create_admin_credential(
        admin.db,
        admin.scope,
        admin.control.peppers,
        name=wanted.name,
        expires_in=None if wanted.expires_in is None else parse_lifetime(wanted.expires_in),
        organization=wanted.organization,
        user=wanted.user,
    )
    admin.tagged(made.about)
    return CreatedAdminKey(**asdict(made.about), key=made.key)


@router.get("/{admin_key}", operation_id="get_admin_key")
async def show(admin: AdminDep, admin_key: _AdminKey) -> AdminCredential:
    """Show an admin key, without its secret."""
    return admin.tagged(await find_admin_credential(admin.db, admin.scope, admin_key))


@router.delete("/{admin_key}", operation_id="revoke_admin_key")
async def revoke(admin: AdminDep, admin_key: _AdminKey) -> AdminCredential:
    """Revoke an admin key, for ever; harmless when it is revoked already.

    The last one that administers the platform stays: without it nobody could make another over HTTP.
    """
    return await revoke_admin_credential(
        admin.db, admin.scope, admin_key, keep_last=admin.caller.kind != "local", check=admin.check_match
    )
