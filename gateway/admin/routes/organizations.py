"""Organizations over HTTP: list them, and make one when the caller administers the platform."""

import datetime as dt
from uuid import UUID

from fastapi import APIRouter

from gateway.admin.organizations import create_organization, list_organizations
from gateway.admin.routes.context import ControlDep, Listing, PageDep, ScopeDep, Shown, Wanted

router = APIRouter(prefix="/organizations", tags=["organizations"])


class NewOrganization(Wanted):
    """What an organization is made of."""

    name: str


class OrganizationShown(Shown):
    """An organization."""

    id: UUID
    name: str
    created_at: dt.datetime


@router.get("", operation_id="list_organizations")
async def index(control: ControlDep, scope: ScopeDep, page: PageDep) -> Listing[OrganizationShown]:
    """List organizations."""
    async with control.transaction() as db:
        return Listing[OrganizationShown].of(await list_organizations(db, scope, page), page)


@router.post("", status_code=201, operation_id="create_organization")
async def create(control: ControlDep, scope: ScopeDep, wanted: NewOrganization) -> OrganizationShown:
    """Make an organization."""
    async with control.transaction() as db:
        made = await create_organization(db, scope, wanted.name)
    return OrganizationShown.model_validate(made)
