"""The setup page for people and agents: `/setup` (HTML) and `/setup.md` (Markdown), of one source.

Both are made once, when the process starts, of settings alone: they need no key, no database and no time of the event
loop, and there is nothing secret in them. The page loads nothing and runs nothing.
"""

from __future__ import annotations

import base64
import hashlib
from dataclasses import asdict, dataclass
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


@dataclass(frozen=True, slots=True)
class Guide:
    """What the page says of this gateway: public address, name, OpenCode's provider id, how people get a key."""

    url: str
    name: str
    provider: str
    signs_in: bool
    needs_key: bool


def setup_text(guide: Guide) -> str:
    """Return the guide as Markdown."""
    text = _templates(autoescape=False).get_template("setup.md.j2")
    return text.render(asdict(guide))


def setup_page(guide: Guide) -> str:
    """Return the guide as an HTML page. HTML in the text would be shown, not obeyed."""
    markdown = MarkdownIt("commonmark", {"html": False}).enable("table")
    page = _templates(autoescape=True).get_template("setup.html.j2")
    return page.render(name=guide.name, style=_STYLE, content=markdown.render(setup_text(guide)))


class Setup:
    """The guide in one form. `guide` says what holds for a request; `known`, when given, is prepared at once."""

    def __init__(
        self,
        guide: Callable[[Scope], Guide],
        known: Guide | None,
        make: Callable[[Guide], str],
        headers: list[Header],
    ) -> None:
        self._guide = guide
        self._make = make
        self._headers = [
            *headers,
            (b"x-content-type-options", b"nosniff"),
            (b"referrer-policy", b"no-referrer"),
            (b"cache-control", b"no-cache"),
        ]
        self._made_for = known
        self._body = b"" if known is None else make(known).encode()

    @classmethod
    def page(cls, guide: Callable[[Scope], Guide], known: Guide | None) -> Setup:
        """Return it as HTML, which may load nothing, run nothing and stand in no frame."""
        style = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
        policy = f"default-src 'none'; style-src 'sha256-{style}'; base-uri 'none'; form-action 'none'"
        headers = [
            (b"content-type", b"text/html; charset=utf-8"),
            (b"content-security-policy", f"{policy}; frame-ancestors 'none'".encode()),
        ]
        return cls(guide, known, setup_page, headers)

    @classmethod
    def text(cls, guide: Callable[[Scope], Guide], known: Guide | None) -> Setup:
        """Return it as Markdown."""
        return cls(guide, known, setup_text, [(b"content-type", b"text/markdown; charset=utf-8")])

    async def __call__(
        self, scope: Scope, receive: Receive, send: Send, headers: dict[bytes, bytes], event_id: UUID
    ) -> None:
        if (guide := self._guide(scope)) != self._made_for:
            self._body, self._made_for = self._make(guide).encode(), guide
        await send_whole(send, 200, [*self._headers, (b"content-length", b"%d" % len(self._body))], self._body)


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
