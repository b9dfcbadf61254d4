"""`penstock audit`: who changed what, when, from where, and what it was before."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from gateway.cli.on_gateway import on_gateway
from gateway.cli.options import Json, Organization
from gateway.cli.output import emit_json, emit_table
from gateway.errors import InvalidRequest

if TYPE_CHECKING:
    from gateway.cli.api import Api

ENTRIES_DEFAULT = 100
PAGE_ENTRIES = 1000

app = typer.Typer(help="Who changed what, and what it was before.", no_args_is_help=True, add_completion=False)


@app.callback()
def _group() -> None:
    """Let `list` be named although it is the only command."""


@app.command("list")
@on_gateway
def list_(
    api: "Api",
    *,
    since: Annotated[
        str | None, typer.Option("--since", metavar="WHEN", help="2026-08-01, 2026-08-01T12:00Z (UTC), 24h or 7d.")
    ] = None,
    until: Annotated[str | None, typer.Option("--until", metavar="WHEN", help="Up to, not including.")] = None,
    org: Organization = None,
    kind: Annotated[
        str | None, typer.Option("--kind", metavar="KIND", help="organization, team, user, membership, key, limit, …")
    ] = None,
    subject: Annotated[str | None, typer.Option("--subject", metavar="ID", help="Id of what was changed.")] = None,
    actor: Annotated[
        str | None, typer.Option("--actor", metavar="WHO", help="Who did it: name, id, or id of the admin key.")
    ] = None,
    action: Annotated[str | None, typer.Option("--action", help="create, change or delete.")] = None,
    limit: Annotated[
        int, typer.Option("--limit", min=0, metavar="N", help="How many entries at most; 0: all there are.")
    ] = ENTRIES_DEFAULT,
    as_json: Json = False,
) -> None:
    """List changes, the latest first."""
    if action not in {None, "create", "change", "delete"}:
        raise InvalidRequest("--action must be create, change or delete")
    wanted = {"since": since, "until": until, "organization": org, "kind": kind, "subject": subject, "actor": actor}
    entries: list[dict[str, Any]] = []
    before: object = None
    while True:
        rows = min(PAGE_ENTRIES, limit - len(entries)) if limit else PAGE_ENTRIES
        page = api.get("audit", **wanted, action=action, limit=rows, before=before)
        entries += page["data"]
        before = page["next_before"]
        if before is None or len(entries) == limit:
            break
    if as_json:
        emit_json(entries)
        return
    columns = {name: name for name in ("at", "who", "did", "what", "id", "changed")}
    emit_table(columns, [_line(entry) for entry in entries], empty="nothing was changed")


def _line(entry: dict[str, Any]) -> dict[str, Any]:
    """Return an entry as people see it in a list; `--json` has what it was before and after."""
    actor, row = entry["actor"], entry["after"] or entry["before"] or {}
    name = row.get("name") or row.get("public_id") or row.get("model") or ""
    return {
        "at": entry["at"],
        "who": actor.get("name") or actor.get("credential") or actor.get("id") or actor.get("kind"),
        "did": entry["action"],
        "what": f"{entry['subject_kind']} {name}".strip(),
        "id": entry["subject_id"],
        "changed": entry["changed"],
    }
