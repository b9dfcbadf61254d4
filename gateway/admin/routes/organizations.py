"""Organizations over HTTP: list them, and make one when the caller administers the platform."""

from fastapi import APIRouter

from gateway.admin.organizations import Organization, create_organization, list_organizations
from gateway.admin.routes.context import ControlDep, Listing, PageDep, ScopeDep, Wanted

router = APIRouter(prefix="/organizations", tags=["organizations"])


class NewOrganization(Wanted):
    """What an organization is made of."""

    name: str


@router.get("", operation_id="list_organizations")
async def index(control: ControlDep, scope: ScopeDep, page: PageDep) -> Listing[Organization]:
    """List organizations."""
    async with control.transaction() as db:
        return Listing[Organization].of(await list_organizations(db, scope, page), page)


@router.post("", status_code=201, operation_id="create_organization")
async def create(control: ControlDep, scope: ScopeDep, wanted: NewOrganization) -> Organization:
    """Make an organization."""
    async with control.transaction() as db:
        return await create_organization(db, scope, wanted.name)
