"""What `opencode auth login https://gateway` and every later start of OpenCode ask for.

OpenCode fetches `/.well-known/opencode` and `/opencode/config.json` each time it starts, waits for both, and does not
start when either refuses or is late. So both answer 200 to everybody; the first needs nothing but the settings, the
second waits for Postgres no longer than the lookup of a key may take, and not at all for a key that is cached.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qs

import msgspec
import structlog

from gateway.edge.asgi import send_json, send_whole
from gateway.edge.identity import identify, token_of
from gateway.edge.opencode_config import Provider, Trouble, offered, opencode_config, troubled_config
from gateway.edge.opencode_login import KEY_VARIABLE, Shell, login_command
from gateway.errors import GatewayError, InvalidKey

if TYPE_CHECKING:
    from collections.abc import Callable
    from uuid import UUID

    from gateway.domain.config import Price
    from gateway.edge.asgi import Receive, Scope, Send
    from gateway.edge.stages import Stages

WELL_KNOWN: Final = "/.well-known/opencode"
CONFIG: Final = "/opencode/config.json"
SETUP: Final = "/setup"

_FOR_ONE_ALONE = [(b"cache-control", b"no-store"), (b"vary", b"authorization")]

_log = structlog.get_logger("penstock.edge")


class WellKnown:
    """How to get a key, and where the configuration is. `?shell=powershell` is for machines without `sh`."""

    def __init__(self, address: Callable[[Scope], str], *, signs_in: bool, needs_key: bool) -> None:
        self._address = address
        self._signs_in = signs_in
        self._needs_key = needs_key

    async def __call__(
        self, scope: Scope, receive: Receive, send: Send, headers: dict[bytes, bytes], event_id: UUID
    ) -> None:
        await self.tell(scope, send, scope["query_string"])

    async def tell(self, scope: Scope, send: Send, query: bytes) -> None:
        """Answer as the query wants it; what it says beside `shell` is nothing to us."""
        asked = parse_qs(query.decode("latin-1"), max_num_fields=8) if query.count(b"&") < 8 else {}
        shell = Shell.POWERSHELL if Shell.POWERSHELL in asked.get("shell", []) else Shell.SH
        url = self._address(scope)
        command = login_command(url, shell, signs_in=self._signs_in, needs_key=self._needs_key)
        document = {
            "auth": {"command": command, "env": KEY_VARIABLE},
            "remote_config": {
                "url": url + CONFIG,
                "headers": {"Authorization": f"Bearer {{env:{KEY_VARIABLE}}}"},
            },
        }
        await send_json(send, 200, msgspec.json.encode(document), [(b"cache-control", b"no-store")])


class Home:
    """`/` leads people to the setup page.

    OpenCode appends `/.well-known/opencode` to whatever it is told, so `opencode auth login "https://gateway?shell=…"`
    asks here, with that path at the end of the query.
    """

    def __init__(self, well_known: WellKnown) -> None:
        self._well_known = well_known

    async def __call__(
        self, scope: Scope, receive: Receive, send: Send, headers: dict[bytes, bytes], event_id: UUID
    ) -> None:
        query: bytes = scope["query_string"]
        if query.endswith(WELL_KNOWN.encode()):
            await self._well_known.tell(scope, send, query.removesuffix(WELL_KNOWN.encode()))
            return
        # Relative, so that it leads to the same gateway whatever name it was asked by.
        await send_whole(send, 303, [(b"location", SETUP[1:].encode()), (b"content-length", b"0")], b"")


class RemoteConfig:
    """The configuration for the key in `Authorization`: always 200.

    Beside `config`, which is all that OpenCode reads, `problem` says in words and by a code what is wrong with the key,
    null when nothing is.
    """

    def __init__(
        self, stages: Stages, provider: Callable[[Scope], Provider], price: Callable[[str], Price | None]
    ) -> None:
        self._stages = stages
        self._provider = provider
        self._price = price

    async def __call__(
        self, scope: Scope, receive: Receive, send: Send, headers: dict[bytes, bytes], event_id: UUID
    ) -> None:
        provider = self._provider(scope)
        found = await self._made(provider, scope, headers, event_id)
        if isinstance(found, Trouble):
            config, problem = troubled_config(provider, found), {"code": found.code, "message": found.what}
        else:
            config, problem = found, None
        body = msgspec.json.encode({"config": config, "problem": problem})
        await send_json(send, 200, body, _FOR_ONE_ALONE)

    async def _made(
        self, provider: Provider, scope: Scope, headers: dict[bytes, bytes], event_id: UUID
    ) -> dict[str, Any] | Trouble:
        again = f"run `opencode auth login {provider.url}`"
        try:
            principal = await identify(self._stages, scope, headers)
        except InvalidKey as error:
            if _has_token(headers):
                return Trouble("key-not-accepted", f"{_sentence(error.message)}; {again}")
            return Trouble("no-key", f"no key was sent; {again}")
        except GatewayError as error:
            if error.status < 500:  # such as a key that may not be used from this address
                return Trouble("key-not-accepted", _sentence(error.message))
            return Trouble("key-not-checked", "keys cannot be checked now; start OpenCode again in a minute")
        except Exception:  # whatever is wrong here must not keep OpenCode from starting
            _log.exception("request_failed", request_id=str(event_id))
            return Trouble("key-not-checked", f"the gateway failed (request {event_id}); start OpenCode again")
        if not offered(self._stages.config, principal):
            return Trouble("no-models", "this key may use no model; ask who gave it to you")
        return opencode_config(provider, self._stages.config, principal, self._price)


def _has_token(headers: dict[bytes, bytes]) -> bool:
    try:
        return bool(token_of(headers))
    except InvalidKey:
        scheme, _, token = headers.get(b"authorization", b"").partition(b" ")
        return bool(token.strip() or (scheme and scheme.lower() != b"bearer"))


def _sentence(message: str) -> str:
    """Return a message for a list of models: without what it says about headers, which OpenCode writes itself."""
    return message.partition(";")[0]
