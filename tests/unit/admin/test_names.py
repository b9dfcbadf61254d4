"""Names of tenants and references to them, and what must never be quoted or stored."""

from __future__ import annotations

from uuid import UUID

import pytest

from gateway.admin.names import checked_models, checked_name, id_and_name, quoted
from gateway.admin.page import Page
from gateway.admin.scope import PLATFORM, Scope
from gateway.errors import Forbidden, InvalidRequest

AN_ID = UUID("85ed53d2-a55a-4e77-b87e-ccb6e673b6ce")


@pytest.mark.parametrize("name", ["a", "Acme GmbH & Co. KG", "Ünïcode", "x" * 200, "[red]", "O'Neil; DROP TABLE"])
def test_printable_names_are_kept(name: str) -> None:
    assert checked_name(name) == name


@pytest.mark.parametrize("name", ["", " ", "a ", " a", "x" * 201, "a\nb", "a\x00", "\udcff", "a\x1b[31m", str(AN_ID)])
def test_other_names_are_refused(name: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        checked_name(name)
    assert refused.value.param == "name"
    assert refused.value.message.isprintable()


def test_a_reference_is_an_id_or_a_name_never_both() -> None:
    assert id_and_name(str(AN_ID)) == (AN_ID, None)
    assert id_and_name("acme") == (None, "acme")
    assert id_and_name("a\x00b") == (None, None)
    assert id_and_name("x" * 100_000) == (None, None)


def test_a_quoted_reference_is_one_short_line() -> None:
    assert quoted("a\nb") == r"'a\nb'"
    assert len(quoted("x" * 1000)) == 82


def test_models_are_named_once_each() -> None:
    assert checked_models(("b", "a", "b")) == ("b", "a")
    for models in ((), ("",), tuple(map(str, range(101)))):
        with pytest.raises(InvalidRequest) as refused:
            checked_models(models)
        assert refused.value.param == "models"


@pytest.mark.parametrize("limit", [0, -1, 1001])
def test_pages_are_bounded(limit: int) -> None:
    with pytest.raises(InvalidRequest, match="limit"):
        Page(limit)


def test_only_the_platform_may_do_platform_things() -> None:
    PLATFORM.require_platform("do this")
    with pytest.raises(Forbidden, match="may not do this"):
        Scope(AN_ID).require_platform("do this")
