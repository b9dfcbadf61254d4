"""A server that speaks Anthropic's messages API as it is told to: real sockets, scripted answers.

with AnthropicServer() as server:
    server.answer = text("Hello", "there")
    ...
    server.requests[-1].document["messages"]
"""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from types import TracebackType

INPUT_TOKENS, CACHE_READ_TOKENS, OUTPUT_TOKENS = 20, 5, 7
WAIT_S_MAX = 30.0


@dataclass(frozen=True)
class Script:
    """What is answered. `events` make the stream, `document` the whole answer.

    `ending` tells what follows the events: "end", "hold" (nothing, until the client hangs up).
    """

    document: dict[str, Any]
    events: tuple[dict[str, Any], ...] = ()
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    ending: str = "end"


@dataclass(frozen=True)
class Received:
    """A request as it came. Header names are lower case."""

    path: str
    headers: dict[str, str]
    document: dict[str, Any]


def answer(*blocks: dict[str, Any], stop_reason: str = "end_turn") -> Script:
    """Return the script of an answer with these content blocks: `text`, or `tool_use` whose `input` is an object."""
    usage = {"input_tokens": INPUT_TOKENS, "cache_read_input_tokens": CACHE_READ_TOKENS, "output_tokens": OUTPUT_TOKENS}
    message = {"id": "msg_1", "type": "message", "role": "assistant", "model": "claude-sim"}
    ended = {"stop_reason": stop_reason, "stop_sequence": None}
    events: list[dict[str, Any]] = [
        {"type": "message_start", "message": message | {"content": [], "usage": usage | {"output_tokens": 1}}}
    ]
    for index, block in enumerate(blocks):
        if block["type"] == "tool_use":
            start = block | {"input": {}}
            deltas = [{"type": "input_json_delta", "partial_json": json.dumps(block["input"])}]
        else:
            start = block | {"text": ""}
            deltas = [{"type": "text_delta", "text": f"{word} "} for word in block["text"].split()]
        events.append({"type": "content_block_start", "index": index, "content_block": start})
        events += ({"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas)
        events.append({"type": "content_block_stop", "index": index})
    events.append({"type": "message_delta", "delta": ended, "usage": {"output_tokens": OUTPUT_TOKENS}})
    events.append({"type": "message_stop"})
    return Script(message | ended | {"content": list(blocks), "usage": usage}, tuple(events))


def text(words: str) -> Script:
    """Return the script of an answer that says this."""
    return answer({"type": "text", "text": words})


def refusal(status: int, kind: str, message: str, **headers: str) -> Script:
    """Return the script of an error."""
    return Script({"type": "error", "error": {"type": kind, "message": message}}, status=status, headers=headers)


class AnthropicServer:
    """The server, on a free port, as a context manager. `answer` is the script of what is asked next."""

    def __init__(self) -> None:
        self.answer = text("hello there")
        self.requests: list[Received] = []
        self.hung_up = threading.Event()
        """Whether a client closed its connection while an answer was held."""
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._http.daemon_threads = True
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.05})

    @property
    def url(self) -> str:
        """The base URL, without `/v1`."""
        return f"http://127.0.0.1:{self._http.server_port}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join(WAIT_S_MAX)

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            timeout = WAIT_S_MAX

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                headers = {name.lower(): value for name, value in self.headers.items()}
                received = Received(self.path, headers, json.loads(body))
                server.requests.append(received)
                script = server.answer
                if received.document.get("stream") and script.status == 200:
                    self._stream(script)
                else:
                    self._whole(script)

            def log_message(self, *arguments: object) -> None:
                """Say nothing."""

            def _whole(self, script: Script) -> None:
                body = json.dumps(script.document).encode()
                self.send_response(script.status)
                for name, value in {**script.headers, "content-length": str(len(body))}.items():
                    self.send_header(name.replace("_", "-"), value)
                self.send_header("content-type", "application/json")
                self.end_headers()
                self.wfile.write(body)

            def _stream(self, script: Script) -> None:
                self.send_response(200)
                self.send_header("content-type", "text/event-stream")
                self.send_header("connection", "close")
                self.end_headers()
                for event in script.events:
                    self.wfile.write(b"event: %b\ndata: %b\n\n" % (event["type"].encode(), json.dumps(event).encode()))
                self.wfile.flush()
                if script.ending == "hold" and not self.connection.recv(1):
                    server.hung_up.set()

        return Handler
