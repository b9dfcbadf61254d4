"""A real OpenID Connect provider as a process, and somebody at a browser who logs in on its pages.

The provider is oidc-provider from npm (`tests/support/oidc_server`). A test knows its private keys, so that it can sign
what the provider itself never would, and changes its people and keys while it runs.
"""

from __future__ import annotations

import json
import re
import subprocess
import time
from html.parser import HTMLParser
from typing import TYPE_CHECKING, Any, Final, Self
from urllib.parse import urljoin

import httpx2
from joserfc import jws
from joserfc.jwk import RSAKey
from joserfc.jws import JWSRegistry

from gateway.dev.files import free_port
from tests.support.npm import CACHE, installed_in, program
from tests.support.source import REPOSITORY
from tests.support.waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from types import TracebackType

    from joserfc.jwk import Key

PINNED: Final = REPOSITORY / "tests" / "support" / "oidc_server"
CLIENT, OTHER_CLIENT, SECRET_CLIENT, SECRET = "penstock", "somebody-else", "penstock-web", "s3cret & more"
START_S_MAX = 60.0
STOP_S_MAX = 30.0
PAGES_MAX = 20
DEVICE_GRANT: Final = "urn:ietf:params:oauth:grant-type:device_code"

Accounts = dict[str, dict[str, Any]]


class OidcServer:
    """The provider on a free port of the loopback, as a context manager.

    `accounts` are claims by subject; whoever types a subject as the login's name is that account.
    """

    def __init__(self, folder: Path, accounts: Accounts, *, device: bool = True) -> None:
        self.accounts = accounts
        self.key = new_key("first")
        self.port = 0
        self._folder = folder
        self._device = device
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def issuer(self) -> str:
        """What it calls itself."""
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        self.port = free_port()
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start it, on the same port each time."""
        cache = installed_in(CACHE.with_name("npm-oidc"), PINNED)
        setup = {
            "port": self.port,
            "device": self._device,
            "accounts": self.accounts,
            "keys": [self.key.as_dict(private=True)],
            "clients": _clients(),
        }
        path = self._folder / "oidc.json"
        path.write_text(json.dumps(setup))
        server, modules = self._folder / "server.js", self._folder / "node_modules"
        server.write_text((PINNED / "server.js").read_text())
        if not modules.exists():
            modules.symlink_to(cache / "node_modules")  # beside the server, where node looks for them
        with (self._folder / "oidc.log").open("ab") as log:
            command = [program("node"), str(server), str(path)]
            self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=log, stderr=subprocess.STDOUT)
        wait_for(self._answers, "the provider answers", START_S_MAX)

    def stop(self) -> None:
        """End it; it can be started again."""
        process, self._process = self._process, None
        if process is not None:
            assert process.stdin is not None, "it was opened"
            process.stdin.close()  # what `node` starts is not always node itself: a signal would not reach it
            process.wait(STOP_S_MAX)

    def set_account(self, subject: str, **claims: Any) -> None:
        """Change or make an account."""
        self.accounts[subject] = {**self.accounts.get(subject, {}), **claims}
        self._change("accounts", self.accounts)

    def rotate(self) -> None:
        """Sign with another key from now on, and publish that one alone."""
        self.key = new_key(f"key-{time.monotonic_ns()}")
        self._change("keys", [self.key.as_dict(private=True)])

    def slow_down(self, times: int) -> None:
        """Answer so many polls of device flows with `slow_down`."""
        self._change("slow-downs", times)

    def asked(self) -> dict[str, int]:
        """Return how often its discovery document and its keys were fetched, by path."""
        return self._change("nothing", None)

    def signed(
        self, subject: str, *, key: Key | None = None, header: Mapping[str, Any] | None = None, **claims: Any
    ) -> str:
        """Return a token with the provider's signature and these claims in place of the usual; None leaves one out."""
        now = int(time.time())
        usual = {"iss": self.issuer, "sub": subject, "aud": CLIENT, "iat": now, "exp": now + 300}
        told = usual | self.accounts.get(subject, {}) | claims
        key = key or self.key
        whole = {"alg": "RS256", "kid": key.kid, **(header or {})}
        payload = json.dumps({name: value for name, value in told.items() if value is not None})
        kept = {name: value for name, value in whole.items() if value is not None}
        return jws.serialize_compact(kept, payload, key, registry=_Anything(algorithms=["RS256", "PS256", "ES256"]))

    def _change(self, what: str, value: object) -> dict[str, int]:
        answer = httpx2.post(f"{self.issuer}/test/{what}", json=value, trust_env=False)
        asked: dict[str, int] = answer.raise_for_status().json()
        return asked

    def _answers(self) -> bool:
        assert self._process is not None, "it was started"
        assert self._process.poll() is None, (self._folder / "oidc.log").read_text()
        try:
            return httpx2.get(f"{self.issuer}/test/nothing-of-note", trust_env=False).status_code == 200
        except httpx2.TransportError:
            return False


class _Anything(JWSRegistry):
    """Signs whatever header there is."""

    def check_header(self, header: dict[str, Any]) -> None:
        """Let it pass."""


def new_key(kid: str) -> RSAKey:
    """Return a private key to sign tokens with."""
    return RSAKey.generate_key(2048, {"kid": kid, "use": "sig"})


def _clients() -> list[dict[str, Any]]:
    native = {
        "application_type": "native",
        "redirect_uris": ["http://127.0.0.1/callback"],
        "grant_types": ["authorization_code", DEVICE_GRANT],
        "response_types": ["code"],
    }
    public = {**native, "token_endpoint_auth_method": "none"}
    secret = {**native, "client_secret": SECRET, "token_endpoint_auth_method": "client_secret_post"}
    return [
        {"client_id": CLIENT, **public},
        {"client_id": OTHER_CLIENT, **public},
        {"client_id": SECRET_CLIENT, **secret},
    ]


class Person:
    """Somebody with a browser, and the patience to fill in one form after the other.

    Who `refuses` does so where a code is to be confirmed.
    """

    def __init__(self, account: str, *, refuses: bool = False) -> None:
        self.account = account
        self.refuses = refuses

    def visit(self, address: str) -> str:
        """Open a page in a new window, log in and consent as it is asked, and return the text of the last page."""
        with httpx2.Client(follow_redirects=True, trust_env=False) as browser:
            page = browser.get(address)
            for _ in range(PAGES_MAX):
                form = _Form.on(page.text)
                if form is None:
                    return page.text
                action = urljoin(str(page.url), form.action)
                if self.refuses and "confirm" in form.fields:
                    return browser.post(action, data=form.fields | {"abort": "yes"}).text
                page = browser.post(action, data=form.fields | self._answers(form))
        raise AssertionError(f"the provider's forms do not end:\n{page.text}")

    def _answers(self, form: _Form) -> dict[str, str]:
        return {name: self.account if name == "login" else "x" for name in form.asked}


class _Form(HTMLParser):
    """The first form of a page that is filled in, not aborted."""

    def __init__(self) -> None:
        super().__init__()
        self.action = ""
        self.fields: dict[str, str] = {}
        self.asked: list[str] = []
        self._within = False
        self._done = False

    @classmethod
    def on(cls, page: str) -> Self | None:
        """Return the form on a page, None when there is none."""
        form = cls()
        form.feed(page)
        return form if form.action else None

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Take in a form and what it has."""
        given = {name: value or "" for name, value in attrs}
        if tag == "form" and not self._done and not re.search(r"abort", given.get("action", "")):
            self._within, self.action = True, given["action"]
        elif tag == "input" and self._within and "name" in given:
            if given.get("type", "text") == "hidden" or given.get("value"):
                self.fields[given["name"]] = given.get("value", "")
            else:
                self.asked.append(given["name"])

    def handle_endtag(self, tag: str) -> None:
        """The form is complete."""
        if tag == "form" and self._within:
            self._within, self._done = False, True
