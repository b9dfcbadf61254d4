"""`penstock webhook`: where the gateway tells of events by itself. A webhook's secret is shown once."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated

import typer

from gateway.admin.times import parse_duration
from gateway.cli.on_gateway import on_gateway
from gateway.cli.options import Json, Organization
from gateway.cli.output import answer, answer_rows, emit_json, emit_line, emit_table
from gateway.errors import InvalidRequest

if TYPE_CHECKING:
    from gateway.cli.api import Api

app = typer.Typer(
    help="Webhooks: budgets that are used up, revoked keys in use.", no_args_is_help=True, add_completion=False
)

GRACE_DEFAULT = "24h"

_Id = Annotated[str, typer.Argument(metavar="ID", help="Id of the webhook.")]
_Event = Annotated[
    list[str] | None,
    typer.Option("--event", metavar="KIND", help="What it is for; may be repeated. Default: everything."),
]
_Description = Annotated[str | None, typer.Option("--description", help="What it is, as people will see it in lists.")]


@app.command()
@on_gateway
def create(
    api: "Api",
    url: Annotated[str, typer.Argument(metavar="URL", help="Where to POST events to.")],
    *,
    org: Annotated[
        str | None, typer.Option("--org", metavar="ORG", help="Whose events. Default: those of every organization.")
    ] = None,
    event: _Event = None,
    description: _Description = None,
    as_json: Json = False,
) -> None:
    """Make a webhook, and show the secret that it signs with: it cannot be shown again."""
    body = {"url": url, "events": event, "description": description or "", "organization": org}
    _show_secret(api.post("webhooks", body=body), "made; its secret is shown only now", as_json=as_json)


@app.command("list")
@on_gateway
def list_(api: "Api", *, org: Organization = None, as_json: Json = False) -> None:
    """List the webhooks, of one organization or all, without their secrets."""
    found = api.every("webhooks", organization=org)
    found.sort(key=lambda webhook: (webhook["organization"] or "", webhook["created_at"]))
    columns = {"organization": "organization", "id": "id", "url": "url", "events": "events", "status": "status"}
    empty = "no webhooks; make one with: penstock webhook create https://… --org ORG"
    answer_rows(found, columns, empty=empty, as_json=as_json)


@app.command()
@on_gateway
def show(api: "Api", webhook: _Id, *, as_json: Json = False) -> None:
    """Show a webhook, and what became of its last deliveries."""
    found = api.get("webhooks", webhook)
    if as_json:
        emit_json(found)
        return
    whose = f"organization {found['organization']}" if found["organization"] else "every organization"
    status = found["disabled_reason"] or found["status"]
    emit_line(f"{found['url']}: {', '.join(found['events'])} of {whose}; {status}")
    columns = {
        "event": "id",
        "kind": "kind",
        "status": "status",
        "created": "created_at",
        "attempts": "attempts",
        "next": "next_attempt_at",
        "answer": "last_status",
        "error": "last_error",
    }
    emit_table(columns, found["deliveries"], empty="nothing was to be told yet")


@app.command()
@on_gateway
def update(
    api: "Api",
    webhook: _Id,
    *,
    url: Annotated[str | None, typer.Option("--url", metavar="URL", help="Where to POST events to.")] = None,
    event: _Event = None,
    description: _Description = None,
    enabled: Annotated[
        bool | None, typer.Option("--enable/--disable", help="Send there again, or no more.", show_default=False)
    ] = None,
    as_json: Json = False,
) -> None:
    """Change a webhook: what is not given stays as it is."""
    wanted = {"url": url, "events": event, "description": description, "enabled": enabled}
    change = {field: value for field, value in wanted.items() if value is not None}
    if not change:
        raise InvalidRequest("say what to change: --url, --event, --description, --enable or --disable")
    now = api.patch("webhooks", webhook, body=change)
    answer(now, f"webhook {now['id']} is {now['status']}", as_json=as_json)


@app.command()
@on_gateway
def rotate(
    api: "Api",
    webhook: _Id,
    *,
    grace: Annotated[
        str, typer.Option("--grace", metavar="24h", help="For how long the secret before signs, too.")
    ] = GRACE_DEFAULT,
    as_json: Json = False,
) -> None:
    """Exchange the secret, and show the new one this once; for a while both sign."""
    parse_duration(grace, "--grace")
    made = api.post("webhooks", webhook, "rotate", body={"grace": grace})
    _show_secret(made, "has a new secret; it is shown only now", as_json=as_json)


@app.command()
@on_gateway
def delete(api: "Api", webhook: _Id, *, as_json: Json = False) -> None:
    """Delete a webhook, with all that waits for it."""
    gone = api.delete("webhooks", webhook)
    answer(gone, f"webhook {gone['id']} is deleted", as_json=as_json)


@app.command("test")
@on_gateway
def ping(api: "Api", webhook: _Id, *, as_json: Json = False) -> None:
    """Send an event `webhook.test`; `show` tells what became of it."""
    queued = api.post("webhooks", webhook, "test", body={})
    answer(queued, f"event {queued['id']} is queued; see: penstock webhook show {webhook}", as_json=as_json)


@app.command("redeliver")
@on_gateway
def again(
    api: "Api",
    webhook: _Id,
    event: Annotated[str, typer.Argument(metavar="EVENT", help="Id of the event, as `show` tells it.")],
    *,
    as_json: Json = False,
) -> None:
    """Send an event once more, under the same id."""
    queued = api.post("webhooks", webhook, "deliveries", event, "redeliver", body={})
    answer(queued, f"event {queued['id']} is queued again", as_json=as_json)


def _show_secret(made: Mapping[str, str], what: str, *, as_json: bool) -> None:
    if as_json:
        emit_json(made)
        return
    emit_line(f"webhook {made['id']} {what}:")
    emit_line(made["secret"])
