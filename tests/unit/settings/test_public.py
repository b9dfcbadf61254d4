"""The public address and what OpenCode is told: what is refused could mean something in a shell or a configuration."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from gateway.settings.public import PublicSettings


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("https://Gateway.Example.com", "https://gateway.example.com"),
        ("HTTP://10.0.0.5:8080", "http://10.0.0.5:8080"),
        ("https://[2001:DB8::1]:8443", "https://[2001:db8::1]:8443"),
        ("https://example.com/llm/gateway", "https://example.com/llm/gateway"),
    ],
)
def test_an_address_is_kept_in_one_spelling(given: str, kept: str) -> None:
    assert PublicSettings(public_url=given).public_url == kept


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ("gateway.example.com", "http:// or https://"),
        ("ftp://gateway.example.com", "http:// or https://"),
        ("https://", "http:// or https://"),
        ("https://gateway.example.com:port", "an address such as"),
        ("https://[::1", "an address such as"),
        ("https://me:secret@gateway.example.com", "credentials"),
        ("https://gateway.example.com/", "slash"),
        ("https://gateway.example.com/v1", "without /v1"),
        ("https://gateway.example.com?a=b", "query"),
        ("https://gateway.example.com#a", "fragment"),
        ("https://gateway.example.com/a b", "plain path"),
        ("https://gateway.example.com/../a", "plain path"),
        ("https://gateway.example.com/{env:HOME}", "plain path"),
        ("https://gate'way.example.com", "http:// or https://"),
        ("https://$(id).example.com", "http:// or https://"),
        ("https://gateway.example.com\n", "http:// or https://"),
        ("https://gäteway.example.com", "http:// or https://"),
    ],
)
def test_whatever_is_more_than_an_address_is_refused(given: str, why: str) -> None:
    with pytest.raises(ValidationError, match=why):
        PublicSettings(public_url=given)


@pytest.mark.parametrize("name", ["openai", "openai-compatible", "opencode", "Penstock", "7even", "a_b", "", "a" * 64])
def test_names_of_providers_that_opencode_treats_in_its_own_way_are_refused(name: str) -> None:
    with pytest.raises(ValidationError, match="must"):
        PublicSettings(opencode_provider_id=name)


@pytest.mark.parametrize("name", ["", " Acme", "Acme {env:HOME}", "A`b`", "<b>", "a\nb", 'a"b'])
def test_names_that_could_be_more_than_a_name_are_refused(name: str) -> None:
    with pytest.raises(ValidationError, match="must be 1 to 60"):
        PublicSettings(opencode_provider_name=name)


def test_names_are_kept() -> None:
    kept = PublicSettings(opencode_provider_id="acme-llm", opencode_provider_name="Acme & Söhne (LLM)")
    assert (kept.opencode_provider_id, kept.opencode_provider_name) == ("acme-llm", "Acme & Söhne (LLM)")
