"""The caller over HTTP: who it is and what it may do."""

from fastapi import APIRouter

from gateway.admin.me import Me, describe
from gateway.admin.routes.call import AdminDep, AdminRoute

router = APIRouter(prefix="/me", tags=["me"], route_class=AdminRoute)


@router.get("", operation_id="get_me")
async def show(admin: AdminDep) -> Me:
    """Show who calls: role, organization and teams."""
    return admin.tagged(await describe(admin.db, admin.caller))
