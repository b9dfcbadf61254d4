"""Settings of one process: from CLI flags, then the environment (`PENSTOCK_*`), then `settings:` in penstock.yaml.

Read once at the start into a frozen object that is passed down; nothing else reads the environment.
"""

from pathlib import Path
from typing import Any

from pydantic import Field, SecretStr, ValidationError
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, EnvSettingsSource, PydanticBaseSettingsSource, SettingsConfigDict

from gateway.errors import ConfigError
from gateway.settings.client import ClientSettings
from gateway.settings.config_file import read_settings_section
from gateway.settings.fields import FileSettings
from gateway.settings.problems import sentence
from gateway.settings.secrets import PostgresDsn, RedisUrl

ENV_PREFIX = "PENSTOCK_"
CONFIG_DEFAULT = Path("penstock.yaml")


class Settings(FileSettings, ClientSettings, BaseSettings):
    """All settings of a process. Secrets are SecretStr: `repr`, logs and tracebacks show stars."""

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX,
        env_ignore_empty=True,
        frozen=True,
        extra="forbid",
        hide_input_in_errors=True,
        allow_inf_nan=False,
    )

    postgres_dsn: PostgresDsn | None = Field(
        None,
        description="Address of Postgres, through a pooler if there is one. Needed by all that serves or administers.",
    )
    postgres_direct_dsn: PostgresDsn | None = Field(
        None,
        description=(
            "Address of Postgres past any pooler, for LISTEN, advisory locks and migrations. Default: `postgres_dsn`."
        ),
    )
    redis_url: RedisUrl | None = Field(
        None, description="Address of Redis, a cluster or sentinels: see redis.md. Needed to serve."
    )
    key_peppers: SecretStr = Field(
        SecretStr(""),
        description=(
            "Secrets mixed into the hashes of API keys, as `1:BASE64,2:BASE64`; the highest version signs new keys. "
            "Empty: version 0, an HMAC without a secret. Make one with `openssl rand -base64 32`."
        ),
    )
    oidc_client_secret: SecretStr | None = Field(
        None,
        description=(
            "The client's secret at the identity provider, where it has one: then people's logins pass through the "
            "gateway, which alone knows it. Default: a public client, which proves itself by PKCE."
        ),
    )
    config: Path = Field(CONFIG_DEFAULT, description="Path of penstock.yaml: pools, models and prices.")

    def require_postgres_dsn(self) -> str:
        """Return the address of Postgres, password included. Raises ConfigError when it is not set."""
        return _required(self.postgres_dsn, "postgres_dsn", "postgresql://user:password@host:5432/penstock")

    def require_postgres_direct_dsn(self) -> str:
        """Return the address of Postgres past any pooler, password included. Raises ConfigError when none is set."""
        direct = self.postgres_direct_dsn
        return direct.get_secret_value() if direct else self.require_postgres_dsn()

    def require_redis_url(self) -> str:
        """Return the address of Redis, password included. Raises ConfigError when it is not set."""
        return _required(self.redis_url, "redis_url", "redis://host:6379/0")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Flags before the environment before the file. No dotenv: a stray `.env` must not configure a server."""
        del env_settings, dotenv_settings, file_secret_settings
        return init_settings, _Environment(settings_cls), _File(settings_cls)


class _Environment(EnvSettingsSource):
    """The environment, without what Kubernetes adds to it: a Service named `penstock` sets PENSTOCK_PORT=tcp://…"""

    def __call__(self) -> dict[str, Any]:
        return {
            name: value
            for name, value in super().__call__().items()
            if not (name.endswith("port") and str(value).startswith(("tcp://", "udp://", "sctp://")))
        }


class _File(PydanticBaseSettingsSource):
    """`settings:` of penstock.yaml, whose path the sources before this one may have given."""

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        """Unused: the file is read whole."""
        raise NotImplementedError

    def __call__(self) -> dict[str, Any]:
        return read_settings_section(Path(self.current_state.get("config", CONFIG_DEFAULT)))


def load_settings(**overrides: Any) -> Settings:
    """Read the process settings.

    Args:
        overrides: settings given on the command line, by field name; None means not given.

    Raises:
        ConfigError: naming each variable or flag that is wrong and what is expected, never the value.
    """
    given = {name: value for name, value in overrides.items() if value is not None}
    try:
        return Settings(**given)
    except ValidationError as error:
        details = error.errors(include_url=False, include_input=False)
    # Outside the handler, so that no traceback leads to the values.
    raise ConfigError("\n".join(f"{_origin(str(detail['loc'][0]), given)} {sentence(detail)}" for detail in details))


def _required(value: SecretStr | None, name: str, example: str) -> str:
    if value is None:
        raise ConfigError(f"{ENV_PREFIX}{name.upper()} is not set; set it to an address such as {example}")
    return value.get_secret_value()


def _origin(name: str, overrides: dict[str, object]) -> str:
    """Return how the person who set `name` knows it."""
    return f"--{name.replace('_', '-')}" if name in overrides else f"{ENV_PREFIX}{name.upper()}"
