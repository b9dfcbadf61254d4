"""Organizations over HTTP: list them, and make one when the caller administers the platform."""

from fastapi import APIRouter

from gateway.admin.organizations import Organization, create_organization, list_organizations
from gateway.admin.routes.call import AdminDep, AdminRoute
from gateway.admin.routes.context import Listing, PageDep, Wanted

router = APIRouter(prefix="/organizations", tags=["organizations"], route_class=AdminRoute)


class NewOrganization(Wanted):
    """What an organization is made of."""

    name: str


@router.get("", operation_id="list_organizations")
async def index(admin: AdminDep, page: PageDep) -> Listing[Organization]:
    """List organizations."""
    return Listing[Organization].of(await list_organizations(admin.db, admin.scope, page), page)


@router.post("", status_code=201, operation_id="create_organization")
async def create(admin: AdminDep, wanted: NewOrganization) -> Organization:
    """Make an organization."""
    return await create_organization(admin.db, admin.scope, wanted.name)
