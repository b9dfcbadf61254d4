"""The setup page for people and agents: `/setup` (HTML) and `/setup.md` (Markdown), of one source.

Both are made once, when the process starts, of settings alone: they need no key, no database and no time of the event
loop, and there is nothing secret in them. The page loads nothing and runs nothing.
"""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from jinja2 import Environment, PackageLoader, StrictUndefined
from markdown_it import MarkdownIt

from gateway.edge.asgi import send_whole

if TYPE_CHECKING:
    from collections.abc import Callable
    from uuid import UUID

    from gateway.edge.asgi import Receive, Scope, Send
    from gateway.edge.errors import Header

_STYLE = """
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; margin: 0; }
main { max-width: 52rem; margin: 0 auto; padding: 1rem 1.25rem 4rem; }
h2 { margin-top: 2.5rem; border-bottom: 1px solid #8886; }
pre { background: #8882; border-radius: 6px; padding: .75rem 1rem; overflow-x: auto; user-select: all; }
code { font: .9em ui-monospace, monospace; }
table { border-collapse: collapse; }
td, th { border: 1px solid #8886; padding: .4rem .6rem; text-align: left; vertical-align: top; }
.note { color: GrayText; }
"""
_STYLE_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
_POLICY = (
    f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_COMMON: list[Header] = [
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-cache"),
]


@dataclass(frozen=True, slots=True)
class Guide:
    """What the page says of this gateway: public address, name, OpenCode's provider id, whether people sign in."""

    url: str
    name: str
    provider: str
    signs_in: bool


@lru_cache(maxsize=4)  # one, but where the address is only known from where requests come in
def setup_text(guide: Guide) -> str:
    """Return the guide as Markdown."""
    text = _templates(autoescape=False).get_template("setup.md.j2")
    return text.render(url=guide.url, name=guide.name, provider=guide.provider, signs_in=guide.signs_in)


@lru_cache(maxsize=4)
def setup_page(guide: Guide) -> str:
    """Return the guide as an HTML page. HTML in the text would be shown, not obeyed."""
    markdown = MarkdownIt("commonmark", {"html": False}).enable("table")
    page = _templates(autoescape=True).get_template("setup.html.j2")
    return page.render(name=guide.name, style=_STYLE, content=markdown.render(setup_text(guide)))


class SetupPage:
    """GET /setup."""

    def __init__(self, guide: Callable[[Scope], Guide]) -> None:
        self._guide = guide

    async def __call__(
        self, scope: Scope, receive: Receive, send: Send, headers: dict[bytes, bytes], event_id: UUID
    ) -> None:
        own = [(b"content-type", b"text/html; charset=utf-8"), (b"content-security-policy", _POLICY.encode())]
        await _send(send, [*own, *_COMMON], setup_page(self._guide(scope)))


class SetupText:
    """GET /setup.md."""

    def __init__(self, guide: Callable[[Scope], Guide]) -> None:
        self._guide = guide

    async def __call__(
        self, scope: Scope, receive: Receive, send: Send, headers: dict[bytes, bytes], event_id: UUID
    ) -> None:
        own = [(b"content-type", b"text/markdown; charset=utf-8"), *_COMMON]
        await _send(send, own, setup_text(self._guide(scope)))


def _templates(*, autoescape: bool) -> Environment:
    # Plain text has nothing to escape; what is filled in was bounded to harmless characters where it was set.
    return Environment(
        loader=PackageLoader("gateway.edge"),
        autoescape=autoescape,  # noqa: S701 - off for the Markdown alone, which the renderer escapes
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


async def _send(send: Send, headers: list[Header], text: str) -> None:
    body = text.encode()
    await send_whole(send, 200, [*headers, (b"content-length", b"%d" % len(body))], body)
