"""The gateways that a person has logged in to: one profile each, in a file that nobody else can read.

`penstock login` keeps one, `penstock logout` removes it, and commands call the current one, which is the last that was
logged in to.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import msgspec

from gateway.dev.files import FILE_BYTES_MAX, write_private
from gateway.errors import ConfigError
from gateway.settings.places import person_config_folder

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

FILE: Final = "profiles.json"
PROFILES_MAX = 100


@dataclass(frozen=True, slots=True)
class Profile:
    """One gateway and what this person shows to it.

    `url` is its base address without a trailing slash. `expires_at` None: until it is revoked. `signed_in` tells a
    session of an identity provider from an admin key that was given. `insecure_http`: plain HTTP was asked for.
    `ca_file` is the path of the authorities that the gateway's certificate was checked with, None for the system's.
    """

    url: str
    credential: str = field(repr=False)
    expires_at: dt.datetime | None = None
    signed_in: bool = False
    insecure_http: bool = False
    ca_file: str | None = None

    def expired(self, now: dt.datetime, *, margin: dt.timedelta = dt.timedelta()) -> bool:
        """Return whether it is over, or will be within `margin`."""
        return self.expires_at is not None and self.expires_at <= now + margin


@dataclass(frozen=True, slots=True)
class _Stored:
    current: str | None = None
    profiles: dict[str, Profile] = field(default_factory=dict)


def current_profile() -> Profile | None:
    """Return the profile that commands use, None when nobody is logged in anywhere. Raises ConfigError."""
    stored = _read()
    return stored.profiles.get(stored.current) if stored.current is not None else None


def profile_of(url: str) -> Profile | None:
    """Return the profile of the gateway at this base address, None when there is none. Raises ConfigError."""
    return _read().profiles.get(url)


def all_profiles() -> Mapping[str, Profile]:
    """Return every profile, by base address. Raises ConfigError."""
    return _read().profiles


def keep(profile: Profile) -> None:
    """Keep a profile in place of the one of that gateway, and make it the current one. Raises ConfigError."""
    stored = _read()
    profiles = {**stored.profiles, profile.url: profile}
    if len(profiles) > PROFILES_MAX:
        raise ConfigError(f"{PROFILES_MAX} gateways are logged in to: log out of one first (penstock logout URL)")
    _write(_Stored(profile.url, profiles))


def forget(url: str) -> None:
    """Remove the profile of this gateway; nothing happens when there is none. Raises ConfigError."""
    stored = _read()
    left = {address: profile for address, profile in stored.profiles.items() if address != url}
    if len(left) < len(stored.profiles):
        _write(_Stored(None if stored.current == url else stored.current, left))


def profiles_file() -> Path:
    """Return where the profiles are kept."""
    return person_config_folder() / FILE


def _read() -> _Stored:
    path = profiles_file()
    try:
        with path.open("rb") as file:
            content = file.read(FILE_BYTES_MAX)
    except FileNotFoundError:
        return _Stored()
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from None
    try:
        return msgspec.json.decode(content, type=_Stored)
    except (msgspec.DecodeError, UnicodeDecodeError):  # its message may quote a credential
        raise ConfigError(f"{path} is damaged: remove it, and log in again") from None


def _write(stored: _Stored) -> None:
    path = profiles_file()
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_private(path, msgspec.json.format(msgspec.json.encode(stored), indent=2).decode() + "\n")
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror}") from None
