"""The API in parts, which commands call in their own process, has what the whole one has."""

from __future__ import annotations

from gateway.admin.api import build_admin_app
from gateway.admin.parts import PREFIX, Parts
from gateway.admin.routes.context import Control
from gateway.authenticate.key import Peppers


def test_each_resource_is_served_whole_by_its_part() -> None:
    control = Control(lambda: None, Peppers({}))  # type: ignore[arg-type, return-value] # nothing is asked for here
    whole = build_admin_app(control, "0").openapi()["paths"]
    parts = Parts(control, "0")
    resources = {path.removeprefix(f"{PREFIX}/").partition("/")[0] for path in whole if path.startswith(f"{PREFIX}/")}
    assert {"teams", "admin-keys", "apply"} <= resources
    for resource in resources:
        mine = {path: set(methods) for path, methods in parts.part(resource).openapi()["paths"].items()}
        below = (f"{PREFIX}/{resource}", f"{PREFIX}/{resource}/")
        theirs = {path: set(whole[path]) for path in whole if path == below[0] or path.startswith(below[1])}
        assert mine == theirs, resource
