"""Webhooks of an organization, known by their addresses, brought to what a document declares; never their secrets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gateway.admin.apply_plan import Run, at, every
from gateway.admin.webhooks import Webhook, WebhookChange, change_webhook, create_webhook, delete_webhook, list_webhooks
from gateway.errors import Conflict

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.admin.apply_document import DeclaredWebhook
    from gateway.admin.organizations import Organization


async def apply_webhooks(
    run: Run, owner: Organization, declared: Sequence[DeclaredWebhook] | None, place: tuple[str, ...]
) -> None:
    """Bring the webhooks of an organization to what is declared. What of one is left out stays as it is."""
    if declared is None:
        return
    found = await every(lambda page: list_webhooks(run.db, run.scope, page, organization=str(owner.id)))
    for number, wanted in enumerate(declared):
        with at(*place, "webhooks", number):
            await _apply(run, owner, wanted, [webhook for webhook in found if webhook.url == wanted.url])
    for webhook in found if run.options.prune else ():
        if webhook.url not in {wanted.url for wanted in declared}:
            with at(*place, "webhooks"):
                await delete_webhook(run.db, run.scope, str(webhook.id))
                run.deleted("webhook", (owner.name, webhook.url), {"events": webhook.events})


async def _apply(run: Run, owner: Organization, wanted: DeclaredWebhook, same: list[Webhook]) -> None:
    path = (owner.name, wanted.url)
    after = _declared(wanted)
    if len(same) > 1:
        raise Conflict("the organization has several webhooks with this address: delete all but one")
    if not same:
        made = await create_webhook(
            run.db,
            run.scope,
            run.peppers,
            url=wanted.url,
            events=after.get("events"),
            description=wanted.description or "",
            organization=str(owner.id),
        )
        if wanted.enabled is False:
            await change_webhook(run.db, run.scope, str(made.about.id), WebhookChange(enabled=False))
        run.created("webhook", path, after)
        return
    before = {name: _now(same[0])[name] for name in after}
    names = [name for name in after if before[name] != after[name]]
    if names:
        change = WebhookChange(**{name: after[name] for name in names})
        await change_webhook(run.db, run.scope, str(same[0].id), change)
        run.changed("webhook", path, {name: before[name] for name in names}, {name: after[name] for name in names})


def _declared(wanted: DeclaredWebhook) -> dict[str, Any]:
    values: dict[str, Any] = {
        "events": None if wanted.events is None else tuple(sorted(set(wanted.events))),
        "description": wanted.description,
        "enabled": wanted.enabled,
    }
    return {name: value for name, value in values.items() if value is not None}


def _now(webhook: Webhook) -> dict[str, Any]:
    return {
        "events": tuple(sorted(webhook.events)),
        "description": webhook.description,
        "enabled": webhook.status != "disabled",
    }
