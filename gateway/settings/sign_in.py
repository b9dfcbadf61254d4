"""Settings of signing in with an identity provider, and the section `sign_in:` of penstock.yaml.

The provider itself is set for the process; what its groups mean is in the file, which is read again when it changes.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from gateway.domain.sign_in import Grant, GroupRole, SignInConfig
from gateway.settings.problems import ConfigProblem
from gateway.settings.yaml_tree import joined

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gateway.settings.yaml_tree import Tree

GROUPS_MAX = 10_000
TEAMS_OF_GROUP_MAX = 100
SESSION_S_MAX = 12 * 3600
LOOPBACK_HOSTS = frozenset({"localhost", "127.0.0.1", "::1"})


def _issuer(address: str) -> str:
    """Check the form alone: an issuer is compared letter by letter, so not even a slash may be added or taken."""
    try:
        parts = urlsplit(address)
        _ = parts.port
    except ValueError:
        raise ValueError("must be an address such as https://id.example.com/realms/acme") from None
    if parts.scheme != "https" and not (parts.scheme == "http" and parts.hostname in LOOPBACK_HOSTS):
        raise ValueError("must begin with https:// (http:// is for loopback alone)")
    if not parts.hostname or "@" in parts.netloc or "?" in address or "#" in address or not address.isprintable():
        raise ValueError("must be an address such as https://id.example.com/realms/acme, without query and password")
    return address


def _scopes(scopes: str) -> str:
    if "openid" not in scopes.split() or not scopes.isascii() or not scopes.isprintable():
        raise ValueError("must be scopes separated by spaces, `openid` among them")
    return " ".join(scopes.split())


class OidcSettings(BaseModel):
    """Which identity provider people sign in with. No secret is among these: see `oidc_client_secret`."""

    oidc_issuer: Annotated[str, Field(max_length=2048), AfterValidator(_issuer)] | None = Field(
        default=None,
        description=(
            "The issuer of the OpenID Connect provider that people sign in with, exactly as it spells itself. "
            "Default: nobody signs in, admin keys alone count. See sign-in.md."
        ),
    )
    oidc_client_id: Annotated[str, Field(min_length=1, max_length=500)] | None = Field(
        default=None, description="What the provider calls Penstock. Needed with `oidc_issuer`."
    )
    oidc_audience: Annotated[str, Field(min_length=1, max_length=500)] | None = Field(
        default=None,
        description=(
            "A further audience: JWTs of the provider that are meant for it are taken under /admin/v1, whatever client "
            "got them. For automation that has a client of its own."
        ),
    )
    oidc_scopes: Annotated[str, Field(max_length=1000), AfterValidator(_scopes)] = Field(
        default="openid profile email",
        description="Scopes that are asked for, separated by spaces; some providers need one for groups.",
    )
    oidc_groups_claim: Annotated[str, Field(min_length=1, max_length=500)] = Field(
        default="groups",
        description="The claim that lists a person's groups; dots lead into objects, as in `realm_access.roles`.",
    )
    oidc_session_s: float = Field(
        default=SESSION_S_MAX,
        ge=300,
        le=SESSION_S_MAX,
        description="How long somebody stays signed in: until then at most a group that was taken away still counts.",
        json_schema_extra={"unit": "seconds"},
    )


def _one_or_many(value: object) -> object:
    return [value] if isinstance(value, str) else value


def _role(value: object) -> object:
    if isinstance(value, str) and value not in {role.value for role in GroupRole}:
        raise ValueError("must be platform_admin, organization_admin, team_admin or member")
    return value


TenantName = Annotated[str, Field(min_length=1, max_length=200)]


class _BaseEntry(BaseModel):
    """As all mappings in the file are: unknown keys are errors, and no message shows a value."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True, allow_inf_nan=False)


class GrantEntry(_BaseEntry):
    """What one group makes of its people. `team` is a name or a list of them."""

    role: Annotated[GroupRole, BeforeValidator(_role)] = GroupRole.MEMBER
    organization: TenantName | None = None
    team: Annotated[tuple[TenantName, ...], Field(max_length=TEAMS_OF_GROUP_MAX), BeforeValidator(_one_or_many)] = ()


class SignInEntry(_BaseEntry):
    """The section `sign_in:`."""

    organization: TenantName | None = None
    organization_claim: Annotated[str, Field(min_length=1, max_length=500)] | None = None
    unmapped: Literal["refuse", "member"] = "refuse"
    groups: Annotated[dict[str, GrantEntry], Field(max_length=GROUPS_MAX)] = {}

    def config(self) -> SignInConfig:
        """Return the section as it is used."""
        grants = {name: Grant(entry.role, entry.organization, entry.team) for name, entry in self.groups.items()}
        return SignInConfig(
            organization=self.organization,
            organization_claim=self.organization_claim,
            admit_unmapped=self.unmapped == "member",
            grants=MappingProxyType(grants),
        )


def sign_in_problems(root: Tree) -> Iterator[ConfigProblem]:
    """Yield what only two places of the section together can tell."""
    section = root.child("sign_in")
    if section is None:
        return
    landing = section.child("organization") or section.child("organization_claim")
    unmapped = section.child("unmapped")
    if unmapped is not None and unmapped.value == "member" and landing is None:
        message = "needs organization or organization_claim: where people land who are in no group"
        yield ConfigProblem(unmapped.line, unmapped.column, "sign_in.unmapped", message)
    groups = section.child("groups")
    for name, grant in groups.items() if groups else ():
        path = joined("sign_in.groups", name)
        role, team = grant.child("role"), grant.child("team")
        wanted = None if role is None else role.value
        if wanted in {GroupRole.PLATFORM_ADMIN, GroupRole.ORGANIZATION_ADMIN} and team is not None:
            message = "administrators of more than a team are given no team"
            yield ConfigProblem(team.key_line, team.key_column, f"{path}.team", message)
        if role is not None and wanted == GroupRole.TEAM_ADMIN and team is None:
            yield ConfigProblem(role.line, role.column, f"{path}.role", "team_admin needs a team")
        if grant.child("organization") is None and landing is None:
            message = "is required, since sign_in has neither organization nor organization_claim"
            yield ConfigProblem(grant.key_line, grant.key_column, f"{path}.organization", message)
