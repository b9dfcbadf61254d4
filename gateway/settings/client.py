"""Settings of the `penstock` command as a client: which gateway it calls, and what it shows there."""

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, Field, SecretStr

from gateway.settings.public import ADDRESS_CHARS_MAX, plain_address


def gateway_address(url: str) -> str:
    """Return a gateway's base address in one spelling, without a slash at the end. Raises ValueError."""
    return plain_address(url.rstrip("/"))


class ClientSettings(BaseModel):
    """What people and scripts set where they call a gateway from; a gateway itself does not read it."""

    url: Annotated[str, AfterValidator(gateway_address)] | None = Field(
        None,
        max_length=ADDRESS_CHARS_MAX,
        description=(
            "Base address of the gateway that `penstock` commands call, such as `https://gateway.example.com`. It goes "
            "before `PENSTOCK_POSTGRES_DSN`. Default: see cli.md."
        ),
    )
    admin_key: SecretStr | None = Field(
        None,
        description="Admin key that `penstock` commands show at `PENSTOCK_URL`. Default: that of `penstock login`.",
    )
    ca_file: Path | None = Field(
        None,
        description=(
            "File of certificate authorities (PEM) that `penstock` commands trust besides nobody else, for a gateway "
            "with a certificate of a company's own. Default: those of the system."
        ),
    )
