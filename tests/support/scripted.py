"""An engine that says exactly what a test tells it to, byte by byte, and remembers exactly what it was sent.

For what no well-behaved engine says: odd usage, odd line ends, streams that end early. Everything else is tested on
the simulated engine.
"""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType


END_S_MAX = 30.0


@dataclass(frozen=True)
class Script:
    """An answer: its body in pieces that are sent one by one. `whole` False: the connection breaks where they end.
    `end`: the response is ended, after all pieces, only once this is set."""

    pieces: tuple[bytes, ...]
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    whole: bool = True
    end: threading.Event | None = None


def json_script(document: object, status: int = 200, **headers: str) -> Script:
    """Return a JSON answer; bytes are sent as they are. Header names are given with `_` for `-`."""
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Script((body,), status, {"content-type": "application/json", **named})


def stream_script(*events: object, whole: bool = True) -> Script:
    """Return a stream of events: bytes are sent as they are, text as the data of an event, anything else as JSON."""
    pieces = []
    for event in events:
        if isinstance(event, bytes):
            pieces.append(event)
        else:
            pieces.append(f"data: {event if isinstance(event, str) else json.dumps(event)}\n\n".encode())
    return Script(tuple(pieces), headers={"content-type": "text/event-stream"}, whole=whole)


class ScriptedEngine:
    """Serves `script` to every request until it is changed. A context manager."""

    def __init__(self) -> None:
        self.script = json_script({}, 500)
        self.first: list[Script] = []
        """What the next requests get, one each, before `script` is what all get."""
        self.bodies: list[bytes] = []
        self.headers: list[dict[str, str]] = []
        self.ports: list[int] = []
        """The other end of the connection that each request came on."""
        engine = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                self._answer(json_script({}))

            def do_POST(self) -> None:
                engine.bodies.append(self.rfile.read(int(self.headers["content-length"])))
                engine.headers.append({name.lower(): value for name, value in self.headers.items()})
                engine.ports.append(self.client_address[1])
                self._answer(engine.first.pop(0) if engine.first else engine.script)

            def _answer(self, script: Script) -> None:
                self.send_response(script.status)
                for name, value in script.headers.items():
                    self.send_header(name, value)
                self.send_header("transfer-encoding", "chunked")
                self.end_headers()
                for piece in script.pieces:
                    self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece))
                    self.wfile.flush()
                if script.end is not None:
                    script.end.wait(END_S_MAX)
                if script.whole:
                    self.wfile.write(b"0\r\n\r\n")
                else:
                    self.close_connection = True

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name that is overridden
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})

    @property
    def url(self) -> str:
        """The base URL, without `/v1`."""
        return f"http://127.0.0.1:{self._server.server_port}"

    @property
    def last_document(self) -> Any:
        """The last body that came, as JSON."""
        return json.loads(self.bodies[-1])

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
