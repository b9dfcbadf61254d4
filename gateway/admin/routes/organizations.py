"""Organizations over HTTP: everybody sees its own; the platform's administrator makes, renames and deletes them."""

from typing import Annotated, TypeAlias

from fastapi import APIRouter, Path

from gateway.admin.organizations import (
    Organization,
    create_organization,
    delete_organization,
    find_organization,
    list_organizations,
    rename_organization,
)
from gateway.admin.routes.call import AdminDep, AdminRoute
from gateway.admin.routes.context import Listing, NameQuery, PageDep, Wanted

router = APIRouter(prefix="/organizations", tags=["organizations"], route_class=AdminRoute)

_Organization: TypeAlias = Annotated[str, Path(max_length=200, description="Id or name.")]


class NewOrganization(Wanted):
    """What an organization is made of."""

    name: str


class OrganizationChange(Wanted):
    """What becomes of an organization."""

    name: str


@router.get("", operation_id="list_organizations")
async def index(admin: AdminDep, page: PageDep, name: NameQuery = None) -> Listing[Organization]:
    """List organizations."""
    return Listing[Organization].of(await list_organizations(admin.db, admin.scope, page, name=name), page)


@router.post("", status_code=201, operation_id="create_organization")
async def create(admin: AdminDep, wanted: NewOrganization) -> Organization:
    """Make an organization. For the platform's administrator."""
    return admin.tagged(await create_organization(admin.db, admin.scope, wanted.name))


@router.get("/{organization}", operation_id="get_organization")
async def show(admin: AdminDep, organization: _Organization) -> Organization:
    """Show an organization."""
    return admin.tagged(await find_organization(admin.db, admin.scope, organization))


@router.patch("/{organization}", operation_id="update_organization")
async def update(admin: AdminDep, organization: _Organization, wanted: OrganizationChange) -> Organization:
    """Rename an organization. For the platform's administrator."""
    found = await find_organization(admin.db, admin.scope, organization, lock=True)
    admin.check_match(found)
    return admin.tagged(await rename_organization(admin.db, admin.scope, found, wanted.name))


@router.delete("/{organization}", operation_id="delete_organization")
async def delete(admin: AdminDep, organization: _Organization) -> Organization:
    """Delete an organization, for ever. For the platform's administrator.

    Its keys stop within a second, what it used stays in the ledger, and its name is free again.
    """
    found = await find_organization(admin.db, admin.scope, organization, lock=True)
    admin.check_match(found)
    return await delete_organization(admin.db, admin.scope, str(found.id))
