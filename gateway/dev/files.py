"""Small files and ports of the development environment: private JSON, remembered secrets and TCP ports.

Everything that holds a password or a key is written through `write_private`, so that the mode is right from the first
byte and a reader never sees half a file.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
from contextlib import suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

LOOPBACK = "127.0.0.1"
FILE_BYTES_MAX = 1024 * 1024
PASSWORD_BYTES = 24


def write_private(path: Path, text: str) -> None:
    """Write `text` to `path` with mode 0600, atomically: readers see the old file or the new one.

    Raises OSError when the folder is missing or not writable.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        with suppress(FileNotFoundError):
            temporary.unlink()
        raise


def write_private_json(path: Path, value: dict[str, Any]) -> None:
    """Write a JSON object as `write_private` does."""
    write_private(path, json.dumps(value, indent=2) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """Return the JSON object in `path`; an absent, damaged or oversized file reads as an empty object."""
    try:
        if path.stat().st_size > FILE_BYTES_MAX:
            return {}
        value = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def new_password() -> str:
    """Return a fresh password that needs no escaping in a URL or a configuration file."""
    return secrets.token_urlsafe(PASSWORD_BYTES)


def port_is_free(port: int) -> bool:
    """Return whether a server could listen on this TCP port of the loopback address now."""
    try:
        try_port(port)
    except (OSError, OverflowError):
        return False
    return True


def try_port(port: int) -> None:
    """Bind this TCP port of the loopback address and let go of it; raises what a server would meet there."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a port in TIME_WAIT is free for a listener
        probe.bind((LOOPBACK, port))


def free_port(preferred: int | None = None, *, taken: frozenset[int] = frozenset()) -> int:
    """Return `preferred` when it is free and not in `taken`, else another free TCP port of the loopback address.

    No socket keeps the port, but it is left in TIME_WAIT: for a minute or so the system gives it to nobody who asks for
    any port and to no connection that leaves, while a server that asks for this very port with SO_REUSEADDR, as servers
    do, gets it. Whoever asks for it by its number can still be faster, so a caller has to cope with losing it.
    """
    if preferred and preferred not in taken:
        with suppress(OSError, OverflowError):
            return _left_in_time_wait(preferred)
    while (port := _left_in_time_wait(0)) in taken:
        pass  # which is not found again: each turn finds another
    return port


def _left_in_time_wait(port: int) -> int:
    """Bind this TCP port, 0 for any free one, let go of it in TIME_WAIT and return it; raises what a server would."""
    with socket.create_server((LOOPBACK, port), backlog=1) as listener:
        address: tuple[str, int] = listener.getsockname()
        client = socket.create_connection(address)
        accepted, _ = listener.accept()
        accepted.close()  # the side that closes first is the one whose port stays in TIME_WAIT
    # By now the listener is closed too, so that this ends even if somebody else's connection was accepted.
    with client, suppress(ConnectionResetError):
        client.recv(1)
    return address[1]
