"""The one error of the development environment: its text tells a person at a terminal what to do about it.

It stays outside of `gateway.errors` on purpose: nothing here is ever rendered to a client of the gateway.
"""

from __future__ import annotations


class DevServerError(Exception):
    """A part of the development environment cannot be started. The text says why, and what to install or change."""
