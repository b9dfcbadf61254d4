"""The end of a login in this machine's browser: a listener on the loopback that takes one answer, and its page.

Only an answer with the state of this very login counts; everything else that knocks is told 404 and changes nothing.
"""

from __future__ import annotations

import hmac
import threading
import time
import webbrowser
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import TYPE_CHECKING, Final, Self
from urllib.parse import parse_qs, urlsplit

from gateway.errors import ConfigError, GatewayError

if TYPE_CHECKING:
    from types import TracebackType

HOST: Final = "127.0.0.1"
PATH: Final = "/callback"
REQUEST_S_MAX: Final = 5.0
"""How long whoever connects may take to send its request."""
TURN_S: Final = 0.5
FIELDS_MAX: Final = 20
_PAGE: Final = (
    '<!doctype html><meta charset="utf-8"><title>Penstock</title><p>%s You can close this page and go back to your'
    " terminal.</p>\n"
)


@dataclass(frozen=True, slots=True)
class Answered:
    """What the provider's redirection brought: a code, or an error in its place."""

    code: str | None
    error: str


class Listener:
    """Waits for the provider's redirection, as a context manager. Port 0 takes a free one."""

    def __init__(self, port: int, state: str, issuer: str) -> None:
        self._state = state
        self._issuer = issuer
        self._answered: Answered | None = None
        try:
            self._server = HTTPServer((HOST, port), self._handler())
        except OSError as error:
            raise ConfigError(
                f"cannot listen on {HOST}:{port}: {error.strerror}; give another --callback-port"
            ) from None
        self._server.timeout = TURN_S

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.server_close()

    @property
    def address(self) -> str:
        """Where the provider shall send the browser back to."""
        return f"http://{HOST}:{self._server.server_port}{PATH}"

    def wait(self, timeout_s: float) -> Answered:
        """Return what came. Raises GatewayError when nothing did in time."""
        deadline_s = time.monotonic() + timeout_s
        while self._answered is None:
            if time.monotonic() > deadline_s:
                raise GatewayError("nobody has logged in with the browser in time; log in again")
            self._server.handle_request()
        return self._answered

    def take(self, target: str) -> str | None:
        """Take a request's target; return what the page says, None for what is not the answer to this login."""
        try:
            parts = urlsplit(target)
            given = {name: values[-1] for name, values in parse_qs(parts.query, max_num_fields=FIELDS_MAX).items()}
        except ValueError:
            return None
        if parts.path != PATH or not hmac.compare_digest(given.get("state", "").encode(), self._state.encode()):
            return None
        if given.get("iss", self._issuer) != self._issuer:  # RFC 9207: another provider's answer in this one's place
            self._answered = Answered(None, "the answer is of another identity provider")
        else:
            self._answered = Answered(given.get("code"), given.get("error", "the answer has no code"))
        return "You are logged in." if self._answered.code else "You are not logged in: your terminal says why."

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        listener = self

        class Handler(BaseHTTPRequestHandler):
            timeout = REQUEST_S_MAX

            def do_GET(self) -> None:
                said = listener.take(self.path)
                body = (_PAGE % said).encode() if said else b"not found\n"
                self.send_response(200 if said else 404)
                self.send_header("content-type", "text/html; charset=utf-8")
                self.send_header("content-length", str(len(body)))
                self.send_header("cache-control", "no-store")
                self.send_header("referrer-policy", "no-referrer")
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the library's name
                """Say nothing: the target holds a code."""

        return Handler


def show(page: str) -> None:
    """Open a page in the browser, where there is one; beside this, since a browser in a terminal is waited for."""
    threading.Thread(target=webbrowser.open, args=(page,), daemon=True).start()
