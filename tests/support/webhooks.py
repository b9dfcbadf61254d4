"""A receiver of webhooks on the loopback address, in threads of its own, and webhooks that lead to it."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Self

from standardwebhooks.webhooks import Webhook as Verifier

from gateway.admin.database import transaction_on
from gateway.admin.scope import PLATFORM
from gateway.admin.webhooks import create_webhook
from gateway.authenticate.key import Peppers
from gateway.domain.addresses import parse_network

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType
    from uuid import UUID

    from gateway.admin.webhooks import CreatedWebhook

PEPPERS = Peppers({})
LOOPBACK = (parse_network("127.0.0.0/8"),)
HANG_S_MAX = 60.0


@dataclass(frozen=True)
class Received:
    """One request, header names in lower case."""

    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def id(self) -> str:
        """Which event it is."""
        return self.headers["webhook-id"]

    def verified(self, secret: str) -> Any:
        """Return the document, once a library that is not ours has verified it."""
        return Verifier(secret).verify(self.body, self.headers)


@dataclass
class Receiver:
    """Answers `answers` in turn, (status, headers), then 204; with `hang` it answers nobody. A context manager."""

    answers: list[tuple[int, Mapping[str, str]]] = field(default_factory=list)
    received: list[Received] = field(default_factory=list)
    hang: bool = False

    def __enter__(self) -> Self:
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                receiver._answer(self)

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self._let_go = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._let_go.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self._server.server_address[1])

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.port}/hook"

    def of(self, event: object) -> list[Received]:
        """Return what was received of one event."""
        return [each for each in self.received if each.id == str(event)]

    def _answer(self, request: BaseHTTPRequestHandler) -> None:
        body = request.rfile.read(int(request.headers["content-length"]))
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.received.append(Received(request.path, headers, body))
        if self.hang:
            self._let_go.wait(HANG_S_MAX)
            return
        status, extra = self.answers.pop(0) if self.answers else (204, {})
        request.send_response(status)
        for name, value in extra.items():
            request.send_header(name, value)
        request.end_headers()


async def make_webhook(
    dsn: str, url: str, organization: UUID | None = None, *, events: list[str] | None = None
) -> CreatedWebhook:
    """Make a webhook: of an organization, or of the platform."""
    async with transaction_on(dsn) as db:
        owner = None if organization is None else str(organization)
        return await create_webhook(db, PLATFORM, PEPPERS, url=url, organization=owner, events=events)
