"""A port that cannot be had is refused for the reason that it has, with the option that chooses another."""

from __future__ import annotations

import errno
import os

import pytest

from gateway.dev.ports import why_not


@pytest.mark.parametrize(
    ("port", "number", "expected"),
    [
        (80, errno.EACCES, "ports below 1024 need privileges, 80 too"),
        (1023, errno.EACCES, "ports below 1024 need privileges, 1023 too"),
        (8080, errno.EACCES, "the system does not allow to listen on port 8080"),
        (80, errno.EADDRINUSE, "port 80 is in use by another program: stop that, or"),
        (8080, errno.EADDRINUSE, "port 8080 is in use by another program: stop that, or"),
        (8080, errno.EADDRNOTAVAIL, "port 8080 cannot be used: Cannot assign requested address"),
    ],
)
def test_each_reason_has_its_words(port: int, number: int, expected: str) -> None:
    said = why_not(port, "--metrics-port", OSError(number, os.strerror(number)))
    assert said.startswith(expected)
    assert said.endswith("choose another port with --metrics-port")
