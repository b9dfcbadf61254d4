"""What `penstock dev` was asked for, and what it tells scripts when it is ready."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

from gateway.dev.files import LOOPBACK

if TYPE_CHECKING:
    from pathlib import Path

ENGINES_MAX = 16
INFO_FILE = "dev.json"


@dataclass(frozen=True, slots=True)
class DevOptions:
    """`port` of the gateway, `metrics_port` (None: 9464 when that is free), the number of engines, and the folder.

    `auth`: `keys` or `none`; None: as the environment and penstock.yaml say.
    """

    data_dir: Path
    port: int = 8080
    metrics_port: int | None = None
    engines: int = 2
    auth: str | None = None


@dataclass(frozen=True, slots=True)
class DevInfo:
    """The content of `dev.json`: addresses and keys of a running development environment. A contract with scripts."""

    base_url: str
    admin_key: str = field(repr=False)
    api_key: str = field(repr=False)
    metrics_url: str
    postgres_dsn: str = field(repr=False)
    redis_url: str = field(repr=False)
    config: str
    engines: list[str]
    pid: int

    def as_dict(self) -> dict[str, object]:
        """Return the fields by name, for JSON."""
        return asdict(self)


def base_url(port: int) -> str:
    """Return the address that clients are given, `/v1` included."""
    return f"http://{LOOPBACK}:{port}/v1"
