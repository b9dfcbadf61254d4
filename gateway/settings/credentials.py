"""Reads the credentials that penstock.yaml refers to: environment variables and mounted files.

The YAML itself never holds one, so that it can be shown, logged and kept in version control.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import SecretStr

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from gateway.settings.schema import PoolEntry

CREDENTIAL_BYTES_MAX = 64 * 1024


class Credentials:
    """Looks up one credential per pool, remembering which files were read and collecting what is wrong.

    `problems` maps `(pool, key of the pool)` to a sentence, which never holds a credential.
    """

    def __init__(self, environ: Mapping[str, str], folder: Path) -> None:
        self.problems: dict[tuple[str, str], str] = {}
        self.files: list[Path] = []
        self._environ = environ
        self._folder = folder

    def of(self, pool: str, entry: PoolEntry) -> SecretStr | None:
        """Return the pool's credential, None when it has none or a problem was noted."""
        if entry.api_key_env is not None:
            value = self._environ.get(entry.api_key_env)
            if value is None:
                self.problems[pool, "api_key_env"] = f"the environment variable {entry.api_key_env} is not set"
                return None
            return self._checked(value, pool, "api_key_env")
        if entry.api_key_file is not None:
            return self._read(self._folder / entry.api_key_file, pool)
        return None

    def _read(self, path: Path, pool: str) -> SecretStr | None:
        self.files.append(path)
        try:
            with path.open("rb") as file:
                content = file.read(CREDENTIAL_BYTES_MAX + 1)
        except (OSError, ValueError) as error:  # ValueError: a null byte in the path
            reason = getattr(error, "strerror", None) or type(error).__name__
            self.problems[pool, "api_key_file"] = f"the file cannot be read: {reason}"
            return None
        if len(content) > CREDENTIAL_BYTES_MAX:
            self.problems[pool, "api_key_file"] = f"the file is larger than {CREDENTIAL_BYTES_MAX} bytes"
            return None
        return self._checked(content.decode("latin-1"), pool, "api_key_file")

    def _checked(self, value: str, pool: str, key: str) -> SecretStr | None:
        """Return the value without the newline that editors leave; it must be able to stand in an HTTP header."""
        credential = value.strip()
        if not credential:
            self.problems[pool, key] = "the credential is empty"
        elif not credential.isascii() or not credential.isprintable():
            self.problems[pool, key] = "the credential holds characters that no HTTP header can carry"
        else:
            return SecretStr(credential)
        return None
