"""`penstock webhook`: where the gateway tells of events by itself. A webhook's secret is shown once."""

from dataclasses import asdict
from typing import Annotated

import typer

from gateway.admin.database import Database
from gateway.admin.scope import PLATFORM
from gateway.admin.times import parse_duration
from gateway.admin.webhook_deliveries import WebhookDelivery, list_deliveries, ping_webhook, redeliver
from gateway.admin.webhooks import (
    Webhook,
    WebhookChange,
    change_webhook,
    create_webhook,
    delete_webhook,
    document,
    find_webhook,
    list_webhooks,
    rotate_webhook_secret,
)
from gateway.cli.connect import control
from gateway.cli.options import Json, Organization, PostgresDsn
from gateway.cli.output import answer, answer_rows, emit_json, emit_line, emit_table
from gateway.errors import InvalidRequest

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
def create(
    url: Annotated[str, typer.Argument(metavar="URL", help="Where to POST events to.")],
    *,
    org: Annotated[
        str | None, typer.Option("--org", metavar="ORG", help="Whose events. Default: those of every organization.")
    ] = None,
    event: _Event = None,
    description: _Description = None,
    as_json: Json = False,
    postgres_dsn: PostgresDsn = None,
) -> None:
    """Make a webhook, and show the secret that it signs with: it cannot be shown again."""
    to = control(postgres_dsn)
    made = to.run(
        lambda db: create_webhook(
            db, PLATFORM, to.peppers, url=url, events=event, description=description or "", organization=org
        )
    )
    if as_json:
        emit_json(document(made))
    else:
        emit_line(f"webhook {made.about.id} made; its secret is shown only now:")
        emit_line(made.secret)


@app.command("list")
def list_(*, org: Organization = None, as_json: Json = False, postgres_dsn: PostgresDsn = None) -> None:
    """List the webhooks, of one organization or all, without their secrets."""
    found = control(postgres_dsn).every(lambda db, page: list_webhooks(db, PLATFORM, page, organization=org))
    found.sort(key=lambda webhook: (webhook.organization or "", webhook.created_at))
    columns = {"organization": "organization", "id": "id", "url": "url", "events": "events", "status": "status"}
    empty = "no webhooks; make one with: penstock webhook create https://… --org ORG"
    answer_rows(found, columns, empty=empty, as_json=as_json)


@app.command()
def show(webhook: _Id, *, as_json: Json = False, postgres_dsn: PostgresDsn = None) -> None:
    """Show a webhook, and what became of its last deliveries."""

    async def look(db: Database) -> tuple[Webhook, list[WebhookDelivery]]:
        return await find_webhook(db, PLATFORM, webhook), await list_deliveries(db, PLATFORM, webhook)

    found, deliveries = control(postgres_dsn).run(look)
    if as_json:
        emit_json(asdict(found) | {"deliveries": deliveries})
        return
    whose = f"organization {found.organization}" if found.organization else "every organization"
    emit_line(f"{found.url}: {', '.join(found.events)} of {whose}; {found.disabled_reason or found.status}")
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
    emit_table(columns, deliveries, empty="nothing was to be told yet")


@app.command()
def update(
    webhook: _Id,
    *,
    url: Annotated[str | None, typer.Option("--url", metavar="URL", help="Where to POST events to.")] = None,
    event: _Event = None,
    description: _Description = None,
    enabled: Annotated[
        bool | None, typer.Option("--enable/--disable", help="Send there again, or no more.", show_default=False)
    ] = None,
    as_json: Json = False,
    postgres_dsn: PostgresDsn = None,
) -> None:
    """Change a webhook: what is not given stays as it is."""
    change = WebhookChange(url, None if event is None else tuple(event), description, enabled)
    if change == WebhookChange():
        raise InvalidRequest("say what to change: --url, --event, --description, --enable or --disable")
    changed = control(postgres_dsn).run(lambda db: change_webhook(db, PLATFORM, webhook, change))
    answer(changed, f"webhook {changed.id} is {changed.status}", as_json=as_json)


@app.command()
def rotate(
    webhook: _Id,
    *,
    grace: Annotated[
        str, typer.Option("--grace", metavar="24h", help="For how long the secret before signs, too.")
    ] = GRACE_DEFAULT,
    as_json: Json = False,
    postgres_dsn: PostgresDsn = None,
) -> None:
    """Exchange the secret, and show the new one this once; for a while both sign."""
    both = parse_duration(grace, "--grace")
    to = control(postgres_dsn)
    made = to.run(lambda db: rotate_webhook_secret(db, PLATFORM, to.peppers, webhook, grace=both))
    if as_json:
        emit_json(document(made))
    else:
        emit_line(f"webhook {made.about.id} has a new secret; it is shown only now:")
        emit_line(made.secret)


@app.command()
def delete(webhook: _Id, *, as_json: Json = False, postgres_dsn: PostgresDsn = None) -> None:
    """Delete a webhook, with all that waits for it."""
    gone = control(postgres_dsn).run(lambda db: delete_webhook(db, PLATFORM, webhook))
    answer(gone, f"webhook {gone.id} is deleted", as_json=as_json)


@app.command("test")
def ping(webhook: _Id, *, as_json: Json = False, postgres_dsn: PostgresDsn = None) -> None:
    """Send an event `webhook.test`; `show` tells what became of it."""
    queued = control(postgres_dsn).run(lambda db: ping_webhook(db, PLATFORM, webhook))
    answer(queued, f"event {queued.id} is queued; see: penstock webhook show {webhook}", as_json=as_json)


@app.command("redeliver")
def again(
    webhook: _Id,
    event: Annotated[str, typer.Argument(metavar="EVENT", help="Id of the event, as `show` tells it.")],
    *,
    as_json: Json = False,
    postgres_dsn: PostgresDsn = None,
) -> None:
    """Send an event once more, under the same id."""
    queued = control(postgres_dsn).run(lambda db: redeliver(db, PLATFORM, webhook, event))
    answer(queued, f"event {queued.id} is queued again", as_json=as_json)
