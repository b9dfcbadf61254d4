"""Pools and engines over HTTP, to be read: penstock.yaml says what there is."""

from typing import Annotated

from fastapi import APIRouter, Path
from pydantic import BaseModel

from gateway.admin.pools import PoolShown, find_pool, list_pools
from gateway.admin.routes.call import AdminDep, AdminRoute

router = APIRouter(prefix="/pools", tags=["pools"], route_class=AdminRoute)


class Pools(BaseModel):
    """All pools, in the order of penstock.yaml."""

    data: list[PoolShown]
    next_after: None = None


@router.get("", operation_id="list_pools")
async def index(admin: AdminDep) -> Pools:
    """List the pools, as this replica sees them now.

    Engines are told to the platform's administrator alone: to everybody else, which models a pool serves, and whether.
    """
    control = admin.control
    return Pools(data=list_pools(admin.scope, control.config(), control.engines()))


@router.get("/{pool}", operation_id="get_pool")
async def show(admin: AdminDep, pool: Annotated[str, Path(max_length=200, description="Its name.")]) -> PoolShown:
    """Show a pool, as this replica sees it now."""
    return find_pool(admin.scope, admin.control.config(), admin.control.engines(), pool)
