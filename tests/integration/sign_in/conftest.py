"""One provider for all tests here; each has a database of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.oidc import OidcServer

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="package")
def oidc(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OidcServer]:
    """The provider. Accounts are made by the tests, each with names of its own."""
    with OidcServer(tmp_path_factory.mktemp("oidc"), {}) as server:
        yield server
