"""What ends a login before anything is sent, and which answers at the loopback count."""

from __future__ import annotations

import pytest

from gateway.cli.login_browser import Answered, Listener
from gateway.cli.login_flows import provider_of
from gateway.cli.run import run
from gateway.errors import Unavailable

STATE, ISSUER = "the-state", "https://id.example"
ANOTHER = "the answer is of another identity provider"


@pytest.mark.parametrize(
    ("url", "code", "words"),
    [
        ("http://gateway.example", 1, "http://gateway.example is not encrypted"),
        ("gateway.example", 2, "URL must "),
        ("https://user:word@gateway.example", 2, "URL must "),
    ],
)
def test_an_address_that_cannot_be_is_told(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, url: str, code: int, words: str
) -> None:
    monkeypatch.delenv("PENSTOCK_URL", raising=False)
    assert run(["login", url]) == code
    shown = capsys.readouterr()
    assert shown.out == ""
    assert words in shown.err
    assert "word@" not in shown.err


@pytest.mark.parametrize(
    ("target", "answered"),
    [
        ("/callback?state=the-state&code=c", Answered("c", "the answer has no code")),
        ("/callback?state=the-state&code=c&iss=https%3A%2F%2Fid.example", Answered("c", "the answer has no code")),
        ("/callback?state=the-state&error=access_denied", Answered(None, "access_denied")),
        ("/callback?state=the-state&code=c&iss=https%3A%2F%2Fevil", Answered(None, ANOTHER)),
        ("/callback?state=another&code=c", None),
        ("/callback?code=c", None),
        ("/callback?state=the-state%C3%A9&code=c", None),
        ("/other?state=the-state&code=c", None),
        ("/callback?" + "&".join(f"f{number}=1" for number in range(50)) + "&state=the-state&code=c", None),
    ],
)
def test_only_the_answer_to_this_login_counts(target: str, answered: Answered | None) -> None:
    listener = object.__new__(Listener)  # without its socket
    listener._state, listener._issuer, listener._answered = STATE, ISSUER, None
    assert (listener.take(target) is None) is (answered is None)
    assert listener._answered == answered


def test_endpoints_of_the_gateway_itself_are_paths() -> None:
    told = {"issuer": ISSUER, "client_id": "c", "scopes": "openid", "authorization_endpoint": f"{ISSUER}/auth"}
    found = provider_of("https://gateway.example", told | {"token_endpoint": "/auth/token"})
    assert (found.token_endpoint, found.device_authorization_endpoint) == ("https://gateway.example/auth/token", None)
    with pytest.raises(Unavailable, match="does not answer"):
        provider_of("https://gateway.example", told)
