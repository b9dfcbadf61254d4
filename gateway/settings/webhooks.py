"""Settings of where webhooks may lead."""

from __future__ import annotations

from pydantic import BaseModel, Field

from gateway.settings.networks import NETWORKS_UNIT, Networks


class WebhookSettings(BaseModel):
    """What the gateway sends to others by itself."""

    webhook_private_addresses: Networks = Field(
        default=(),
        description=(
            "Networks or addresses that are not public and that webhooks may be sent to all the same, also by "
            "`http://`, with commas between; in penstock.yaml a list. Whoever may make webhooks can then make the "
            "gateway connect there. Empty: public addresses by `https://` alone."
        ),
        json_schema_extra={"unit": NETWORKS_UNIT},
    )
