"""Signing out over HTTP: the end of the session that is shown."""

from fastapi import APIRouter
from pydantic import BaseModel

from gateway.admin.routes.call import AdminDep, AdminRoute
from gateway.admin.routes.sign_in import PREFIX
from gateway.admin.sign_in.sessions import end_session

router = APIRouter(prefix=PREFIX, tags=["sign-in"], route_class=AdminRoute)


class SignedOut(BaseModel):
    """Whether a session has ended: false for an admin key, which an administrator revokes."""

    ended: bool


@router.post("/logout", operation_id="sign_out")
async def logout(admin: AdminDep) -> SignedOut:
    """End the session that is shown. Harmless for admin keys, which stay."""
    credential = admin.caller.credential
    return SignedOut(ended=credential is not None and await end_session(admin.db, credential))
