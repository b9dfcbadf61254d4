"""Finds the place that a command works on: a gateway over HTTP, or a database from here.

In this order: `--postgres-dsn` or `--gateway`; PENSTOCK_URL; PENSTOCK_POSTGRES_DSN; a `penstock dev` that runs
in the current folder; the gateway of the last `penstock login`. PENSTOCK_URL goes before PENSTOCK_POSTGRES_DSN because
whoever sets it means these commands, while the other may be there for a gateway.
"""

from __future__ import annotations

import datetime as dt
import ipaddress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias
from urllib.parse import urlsplit

from gateway.cli.connect import running_dev
from gateway.cli.profiles import Profile, all_profiles, current_profile, profile_of
from gateway.errors import ConfigError, InvalidRequest
from gateway.settings import Settings, load_settings
from gateway.settings.client import gateway_address
from gateway.storage.dsn import redacted

if TYPE_CHECKING:
    from collections.abc import Callable

PROFILES_TOLD_MAX = 10


@dataclass(frozen=True, slots=True)
class Chosen:
    """What a call itself says of the place; nothing: whatever is found.

    `gateway` is an address, or the host of a gateway that was logged in to.
    """

    postgres_dsn: str | None = None
    gateway: str | None = None
    ca_file: Path | None = None
    insecure_http: bool = False


@dataclass(frozen=True, slots=True)
class Remote:
    """A gateway, and what is shown there. `found`: how it was chosen. `ca_file` None: the system's authorities."""

    url: str
    credential: str = field(repr=False)
    found: str
    ca_file: Path | None = None

    def __str__(self) -> str:
        return self.url


@dataclass(frozen=True, slots=True)
class Local:
    """A database. `config` is the gateway's penstock.yaml, None where there is none here."""

    address: str = field(repr=False)
    found: str
    settings: Settings = field(repr=False)
    config: Path | None = None

    def __str__(self) -> str:
        return redacted(self.address)


Place: TypeAlias = "Remote | Local"


def find_place(chosen: Chosen, note: Callable[[str], None]) -> Place:
    """Return the place to work on; `note` tells a person when the environment names two.

    Raises InvalidRequest for a call that names two, ConfigError when there is none, saying what to set.
    """
    if chosen.postgres_dsn is not None and chosen.gateway is not None:
        raise InvalidRequest("give only one of --postgres-dsn and --gateway")
    settings = load_settings(postgres_dsn=chosen.postgres_dsn, ca_file=chosen.ca_file)
    if chosen.postgres_dsn is not None:
        return _local(settings, settings.require_postgres_dsn(), "--postgres-dsn")
    if chosen.gateway is not None:
        return _named(chosen.gateway, settings, insecure_http=chosen.insecure_http)
    if settings.url is not None:
        if settings.postgres_dsn is not None:
            note(f"PENSTOCK_URL goes before PENSTOCK_POSTGRES_DSN: working on {settings.url}")
        return _at(settings.url, settings, "PENSTOCK_URL", insecure_http=chosen.insecure_http)
    if settings.postgres_dsn is not None:
        return _local(settings, settings.require_postgres_dsn(), "PENSTOCK_POSTGRES_DSN")
    dev = running_dev().get("postgres_dsn")
    if isinstance(dev, str):
        return _local(settings, dev, "the `penstock dev` that runs here")
    profile = current_profile()
    if profile is not None:
        return _of_profile(profile, settings, "penstock login")
    if others := [*all_profiles()]:
        raise ConfigError(f"which gateway? say --gateway with one of {', '.join(others[:PROFILES_TOLD_MAX])}")
    raise ConfigError(
        "no gateway to work on: `penstock login URL`, or set PENSTOCK_URL and PENSTOCK_ADMIN_KEY; for a database set"
        " PENSTOCK_POSTGRES_DSN or give --postgres-dsn, or call this in a folder in which `penstock dev` is running"
    )


def _local(settings: Settings, address: str, found: str) -> Local:
    """Return a database, with the penstock.yaml of the `penstock dev` whose database it is, else the one configured."""
    dev = running_dev()
    of_dev = dev.get("config") if dev.get("postgres_dsn") == address else None
    config = Path(of_dev) if isinstance(of_dev, str) else settings.config
    return Local(address, found, settings, config if config.exists() else None)


def _named(gateway: str, settings: Settings, *, insecure_http: bool) -> Remote:
    if "://" not in gateway:
        return _of_profile(_profile_named(gateway), settings, "--gateway")
    try:
        url = gateway_address(gateway)
    except ValueError as error:
        raise InvalidRequest(f"--gateway {error}") from None
    return _at(url, settings, "--gateway", insecure_http=insecure_http)


def _at(url: str, settings: Settings, found: str, *, insecure_http: bool) -> Remote:
    """Return the gateway at `url` with the credential meant for it: no other gateway is ever shown it."""
    profile = profile_of(url)
    if settings.admin_key is not None and settings.url in {None, url}:
        check_private(url, insecure_http=insecure_http)
        return Remote(url, settings.admin_key.get_secret_value().strip(), found, settings.ca_file)
    if profile is None:
        raise ConfigError(f"nothing to show at {url}: `penstock login {url}`, or set PENSTOCK_ADMIN_KEY")
    return _of_profile(profile, settings, found)


def _of_profile(profile: Profile, settings: Settings, found: str) -> Remote:
    if profile.expired(dt.datetime.now(dt.UTC)):
        raise ConfigError(f"the login at {profile.url} is over: penstock login {profile.url}")
    check_private(profile.url, insecure_http=profile.insecure_http)
    return Remote(profile.url, profile.credential, found, authorities(settings, profile))


def authorities(settings: Settings, profile: Profile | None) -> Path | None:
    """Return whose certificates to trust: what the call or the environment says, else what the login was made with."""
    kept = None if profile is None or profile.ca_file is None else Path(profile.ca_file)
    return settings.ca_file or kept


def _profile_named(host: str) -> Profile:
    """Return the login at the gateway of this host, with its port if that is not the usual one."""
    known = all_profiles()
    found = [profile for url, profile in known.items() if urlsplit(url).netloc == host.lower()]
    if len(found) != 1:
        told = ", ".join([*known][:PROFILES_TOLD_MAX]) or "none"
        raise InvalidRequest(f"--gateway must be an address, or the host of one gateway logged in to: {told}")
    return found[0]


def check_private(url: str, *, insecure_http: bool) -> None:
    """Raise ConfigError where a credential would cross a network in the clear."""
    parts = urlsplit(url)
    if parts.scheme == "https" or insecure_http or is_loopback(parts.hostname or ""):
        return
    raise ConfigError(
        f"{url} is not encrypted: everybody between could read the admin key; take https://, or say --insecure-http"
    )


def is_loopback(host: str) -> bool:
    """Return whether a host of an address is this machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
