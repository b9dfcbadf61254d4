"""Applying a document over HTTP: tenants and prices brought to what it declares, all of it or nothing."""

from collections.abc import Iterable
from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import BaseModel

from gateway.admin.apply import Applied, apply_document
from gateway.admin.apply_document import Document
from gateway.admin.apply_plan import Options, Run
from gateway.admin.routes.call import AdminDep, AdminRoute

router = APIRouter(prefix="/apply", tags=["apply"], route_class=AdminRoute)


class Asked(BaseModel):
    """How to apply the body."""

    dry_run: Annotated[bool, Query(description="Only tell what it would change.")] = False
    prune: Annotated[bool, Query(description="Delete what written sections do not have; no organization.")] = False
    create_keys: Annotated[bool, Query(description="Make service keys that are not there, and show them.")] = False
    unchecked_models: Annotated[bool, Query(description="Take models that penstock.yaml does not have.")] = False


@router.post("", operation_id="apply")
async def apply(admin: AdminDep, asked: Annotated[Asked, Query()], document: Document) -> Applied:
    """Bring tenants and prices to what is declared, within the caller's reach; a second time changes nothing.

    Of an error, `param` is the place in the body as a JSON Pointer.
    """

    def check_models(names: Iterable[str]) -> None:
        admin.control.check_models(names, param="model", unchecked=asked.unchecked_models)

    options = Options(prune=asked.prune, create_keys=asked.create_keys)
    run = Run(admin.db, admin.scope, admin.control.peppers, options, check_models)
    return await apply_document(run, document, dry_run=asked.dry_run)
