"""What a file of `penstock apply` may declare: tenants with their limits, and prices. JSON Schema is made from here.

Every name is exact. A section that is left out is not looked at; one that is written is held, and pruned when that is
asked for. Text from YAML and numbers from JSON are taken alike; money is exact decimal text.
"""

from __future__ import annotations

import datetime as dt
from typing import Annotated, Any, Final, TypeAlias

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema, model_validator

from gateway.admin.limit_values import CONCURRENT_REQUESTS_MAX, LIMIT_MAX, OUTPUT_TOKENS_MAX, budget_amount
from gateway.admin.names import MODELS_MAX, checked_name
from gateway.admin.networks import ADDRESSES_MAX
from gateway.admin.scope import MembershipRole, PersonRole  # noqa: TC001 - read by pydantic
from gateway.admin.times import is_relative, parse_moment
from gateway.errors import InvalidRequest
from gateway.units import format_usd

SCHEMA_ID: Final = "https://json-schema.org/draft/2020-12/schema"
DOCUMENT_BYTES_MAX: Final = 4 * 2**20
RULES_MAX = 100
WEBHOOKS_MAX = 20


def _name(text: str) -> str:
    try:
        return checked_name(text, "the name")
    except InvalidRequest as error:
        raise ValueError(error.message) from None


def _usd(value: object) -> object:
    """Return an amount in its one spelling. A float is refused: it may not be what was written."""
    if isinstance(value, bool | float):
        raise ValueError('must be exact: decimal text such as "25.50"')  # noqa: TRY004 - pydantic tells ValueErrors
    try:
        return format_usd(budget_amount(str(value), "the amount"))
    except InvalidRequest as error:
        raise ValueError(error.message.removeprefix("the amount ")) from None


def _rate(value: object) -> object:
    if isinstance(value, bool | float):
        raise ValueError('must be exact: decimal text such as "0.20"')  # noqa: TRY004 - pydantic tells ValueErrors
    return str(value) if isinstance(value, int) else value


def _moment(value: object) -> object:
    if not isinstance(value, str) or is_relative(value):
        raise ValueError("must be a moment such as 2026-08-01 or 2026-08-01T12:00Z, the same at every reading")
    try:
        return parse_moment(value, dt.datetime.now(dt.UTC), "the moment")
    except InvalidRequest as error:
        raise ValueError(error.message.removeprefix("the moment ")) from None


_DECIMAL: Final = WithJsonSchema({"type": ["string", "number"], "description": "US dollars, exact decimals."})
Name: TypeAlias = Annotated[str, AfterValidator(_name)]
Usd: TypeAlias = Annotated[str, BeforeValidator(_usd), _DECIMAL]
Rate: TypeAlias = Annotated[str, BeforeValidator(_rate), Field(max_length=40), _DECIMAL]
Moment: TypeAlias = Annotated[
    dt.datetime, BeforeValidator(_moment), WithJsonSchema({"type": "string", "description": "In UTC without a zone."})
]
Count: TypeAlias = Annotated[int, Field(ge=1, le=LIMIT_MAX)]


class Declared(BaseModel):
    """Base of all that is declared: unknown fields are refused, values that were given are never quoted."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)


class DeclaredLimit(Declared):
    """All that one rule allows, for one model or for all. What is left out is not limited by it."""

    model: Name | None = None
    requests_per_minute: Count | None = None
    requests_burst: Count | None = None
    tokens_per_minute: Count | None = None
    tokens_burst: Count | None = None
    input_tokens_per_minute: Count | None = None
    input_tokens_burst: Count | None = None
    output_tokens_per_minute: Count | None = None
    output_tokens_burst: Count | None = None
    concurrent_requests: Annotated[int, Field(ge=1, le=CONCURRENT_REQUESTS_MAX)] | None = None
    output_tokens_max: Annotated[int, Field(ge=1, le=OUTPUT_TOKENS_MAX)] | None = None
    budget_day_usd: Usd | None = None
    budget_week_usd: Usd | None = None
    budget_month_usd: Usd | None = None
    budget_session_usd: Usd | None = None
    budget_stops_streams: bool = False

    @model_validator(mode="after")
    def _whole(self) -> DeclaredLimit:
        values = self.model_dump(exclude={"model", "budget_stops_streams"}, exclude_none=True)
        if not values:
            raise ValueError("must allow something: give at least one value, such as tokens_per_minute")
        for name in values:
            rate = name.replace("_burst", "_per_minute")
            if rate not in values:
                raise ValueError(f"{name} needs {rate}")
        if self.budget_stops_streams and not any(name.startswith("budget_") for name in values):
            raise ValueError("budget_stops_streams needs a budget")
        return self


def _one_each(kind: str, *fields: str) -> Any:
    """Return a validator: no two of a list are the same by these fields."""

    def check(values: list[BaseModel]) -> list[BaseModel]:
        seen = [tuple(getattr(value, field) for field in fields) for value in values]
        if len(set(seen)) < len(seen):
            raise ValueError(f"must not have two {kind} with the same {' and '.join(fields)}")
        return values

    return AfterValidator(check)


Limits: TypeAlias = Annotated[list[DeclaredLimit], Field(max_length=RULES_MAX), _one_each("limits", "model")]


class DeclaredKey(Declared):
    """A service key. What is left out stays as it is, null takes it away."""

    models: Annotated[list[Name], Field(min_length=1, max_length=MODELS_MAX)] | None = None
    addresses: Annotated[list[str], Field(min_length=1, max_length=ADDRESSES_MAX)] | None = None
    expires_at: Moment | None = None
    limits: Limits | None = None


class DeclaredTeam(Declared):
    """A team: roles of its members by the user's name, and its service keys by name."""

    members: dict[Name, MembershipRole] | None = None
    limits: Limits | None = None
    keys: dict[Name, DeclaredKey | None] | None = None


class DeclaredUser(Declared):
    """A user. Without a role, the role stays as it is."""

    role: PersonRole | None = None
    limits: Limits | None = None


class DeclaredWebhook(Declared):
    """A webhook, known by its address. Its secret is shown by `penstock webhook rotate` alone."""

    url: Annotated[str, Field(max_length=2000)]
    events: Annotated[list[str], Field(min_length=1, max_length=20)] | None = None
    description: Annotated[str, Field(max_length=200)] | None = None
    enabled: bool | None = None


class DeclaredOrganization(Declared):
    """An organization, with what is in it."""

    limits: Limits | None = None
    users: dict[Name, DeclaredUser | None] | None = None
    teams: dict[Name, DeclaredTeam | None] | None = None
    webhooks: Annotated[list[DeclaredWebhook], Field(max_length=WEBHOOKS_MAX), _one_each("webhooks", "url")] | None = (
        None
    )


class DeclaredPrice(Declared):
    """What a model costs, in US dollars per million tokens, `request` per request; from a moment on, or by now."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True, validate_by_name=True, validate_by_alias=True)

    model: Name
    since: Annotated[Moment | None, Field(alias="from")] = None
    input: Rate
    output: Rate
    cached_input: Rate | None = None
    reasoning: Rate | None = None
    request: Rate | None = None


class Document(Declared):
    """A whole file."""

    organizations: dict[Name, DeclaredOrganization | None] = {}
    prices: Annotated[list[DeclaredPrice], _one_each("prices", "model", "since")] = []


def json_schema() -> dict[str, Any]:
    """Return the schema of a file, for editors and for checks."""
    return {"$schema": SCHEMA_ID} | Document.model_json_schema() | {"title": "A file of penstock apply"}
