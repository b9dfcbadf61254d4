"""Bodies of requests about API keys, and the examples of the OpenAPI document."""

from typing import Annotated, Any, Final, TypeAlias

from pydantic import AwareDatetime, ConfigDict, Field

from gateway.admin.key_changes import KeyChange, Texts
from gateway.admin.limit_values import REMOVED
from gateway.admin.names import MODELS_MAX, NAME_CHARS_MAX
from gateway.admin.networks import ADDRESSES_MAX
from gateway.admin.routes.context import Reference, Wanted
from gateway.admin.routes.limit_fields import WantedLimits

_Models: TypeAlias = Annotated[
    list[str], Field(max_length=MODELS_MAX, description="Names of penstock.yaml, never aliases; null: every model.")
]
_Addresses: TypeAlias = Annotated[
    list[Annotated[str, Field(max_length=100)]],
    Field(max_length=ADDRESSES_MAX, description="Networks such as 10.0.0.0/8, or addresses; null: from anywhere."),
]

KEY_EXAMPLE: Final[dict[str, Any]] = {
    "id": "5b3a1c52-6b8f-4c8e-9f64-0d1c7a0f2b11",
    "public_id": "Zk3vQ9xT1mB7aLw2",
    "name": "ci",
    "status": "active",
    "organization_id": "0b7d2f0e-51f5-4f0f-8f5e-9d8a4f6b1c22",
    "organization": "acme",
    "team_id": "a1c9e2d4-7b36-4f58-b0a9-3e5d7c1f8a33",
    "team": "search",
    "user_id": None,
    "user": None,
    "models": ["qwen-coder"],
    "addresses": ["10.0.0.0/8", "2001:db8::/32"],
    "expires_at": "2026-10-30T12:00:00Z",
    "revoked_at": None,
    "rotated_at": "2026-08-01T12:00:00Z",
    "previous_expires_at": "2026-08-02T12:00:00Z",
    "created_at": "2026-05-03T12:00:00Z",
}
CREATED_EXAMPLE: Final[dict[str, Any]] = KEY_EXAMPLE | {"key": "sk-pst-…"}


class NewKey(WantedLimits):
    """What a key is made of. `user` null: a service key, or one's own. `expires_in` like 30d, 12h; null: never.

    The limits given are of the one model `limits_model`, or of all. `unchecked_model` takes names of models that
    penstock.yaml does not have.
    """

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "team": "search",
                    "organization": "acme",
                    "name": "ci",
                    "models": ["qwen-coder"],
                    "addresses": ["10.0.0.0/8"],
                    "expires_in": "90d",
                    "tokens_per_minute": 200_000,
                }
            ]
        }
    )

    team: Reference
    organization: Reference | None = None
    user: Reference | None = None
    name: str = ""
    models: _Models | None = None
    addresses: _Addresses | None = None
    expires_in: Annotated[str, Field(max_length=20)] | None = None
    limits_model: str | None = None
    unchecked_model: bool = False


class ChangedKey(Wanted):
    """What shall be different. A value left out stays as it is; null takes it away."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"name": "ci", "models": None, "expires_at": "2027-01-01T00:00:00Z"}]}
    )

    name: Annotated[str, Field(max_length=NAME_CHARS_MAX)] | None = None
    models: _Models | None = None
    addresses: _Addresses | None = None
    expires_at: (
        Annotated[AwareDatetime, Field(strict=False, description="When it ends, as RFC 3339; null: never.")] | None
    ) = None
    unchecked_model: bool = False

    def change(self) -> KeyChange:
        """Return what is to be changed."""
        given = self.model_fields_set
        return KeyChange(
            name=REMOVED if self.name is None and "name" in given else self.name,
            models=_texts(self.models, given="models" in given),
            addresses=_texts(self.addresses, given="addresses" in given),
            expires_at=REMOVED if self.expires_at is None and "expires_at" in given else self.expires_at,
        )


class KeyRotation(Wanted):
    """How long the text before shall count, too: `grace` like 24h (the default), 0s for not at all, up to 30d."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"grace": "24h"}]})

    grace: Annotated[str, Field(max_length=20)] | None = None


def _texts(values: list[str] | None, *, given: bool) -> Texts:
    if values is None:
        return REMOVED if given else None
    return tuple(values)
