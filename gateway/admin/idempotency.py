"""Requests that may be sent twice: the second is answered with the first one's answer, and changes nothing.

The record is written in the transaction of the change, so it exists exactly when the change does. An answer may hold a
new key, so it is kept encrypted under what the caller alone has: the token it showed and the idempotency key it chose.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from starlette.responses import Response

from gateway.errors import Conflict, IdempotencyKeyReused, InvalidRequest

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from starlette.requests import Request

    from gateway.admin.caller import Caller
    from gateway.admin.database import Database

IDEMPOTENCY_KEY = "idempotency-key"
KEY_CHARS_MAX = 255
KEPT = "24 hours"
CLEARED_MAX = 100
"""How many records that are past their time each new one takes away."""

WAIT_MS_MAX = 5000
"""How long a repetition waits for the first, which may still be under way."""

_NONCE_BYTES = 12
_CLEAR = f"""
    DELETE FROM idempotency_record WHERE (caller, key_hash) IN (
        SELECT caller, key_hash FROM idempotency_record WHERE created_at < now() - interval '{KEPT}'
        ORDER BY created_at LIMIT {CLEARED_MAX} FOR UPDATE SKIP LOCKED)
"""  # noqa: S608 - constants of this module


@dataclass(frozen=True, slots=True)
class Repeatable:
    """One request with an idempotency key: by whom, which one, and what it asks for."""

    caller: str
    key_hash: bytes
    request_hash: bytes
    secret: bytes = field(repr=False)

    @classmethod
    async def of(cls, caller: Caller, key: str, request: Request) -> Repeatable:
        """Read what makes a request the same as another. Raises InvalidRequest for a key that cannot be one."""
        if not 1 <= len(key) <= KEY_CHARS_MAX or not key.isprintable():
            raise InvalidRequest(f"idempotency-key must have 1 to {KEY_CHARS_MAX} printable characters")
        target = f"{request.method} {request.url.path}?{request.url.query}\n".encode()
        token = request.headers.get("authorization", "")
        return cls(
            caller=f"{caller.kind} {caller.id}",
            key_hash=hashlib.sha256(key.encode()).digest(),
            request_hash=hashlib.sha256(target + await request.body()).digest(),
            secret=hashlib.sha256(f"penstock idempotency\n{key}\n{token}".encode()).digest(),
        )

    async def once(self, db: Database, handle: Callable[[], Awaitable[Response]]) -> Response:
        """Return what `handle` answers, or what it answered the first time.

        Raises IdempotencyKeyReused when the key belongs to another request, and Conflict when the first answer was
        for another token of the same caller.
        """
        await db.execute(_CLEAR)
        await db.execute(f"SET LOCAL lock_timeout = {WAIT_MS_MAX}")
        claimed = await db.fetchrow(
            """
            INSERT INTO idempotency_record (caller, key_hash, request_hash) VALUES ($1, $2, $3)
            ON CONFLICT DO NOTHING RETURNING 1
            """,
            self.caller,
            self.key_hash,
            self.request_hash,
        )
        if claimed is None:
            return await self._repeated(db)
        response = await handle()
        await db.execute(
            "UPDATE idempotency_record SET status = $3, answer = $4 WHERE caller = $1 AND key_hash = $2",
            self.caller,
            self.key_hash,
            response.status_code,
            self._sealed(response),
        )
        return response

    async def _repeated(self, db: Database) -> Response:
        row = await db.fetchrow(
            "SELECT request_hash, status, answer FROM idempotency_record WHERE caller = $1 AND key_hash = $2",
            self.caller,
            self.key_hash,
        )
        if row is None or row["answer"] is None:
            raise Conflict("the same request was taken back meanwhile; send it again")
        if row["request_hash"] != self.request_hash:
            raise IdempotencyKeyReused("this idempotency-key was sent with another request: choose a new one")
        try:
            opened = AESGCM(self.secret).decrypt(row["answer"][:_NONCE_BYTES], row["answer"][_NONCE_BYTES:], None)
        except InvalidTag:
            message = "this request is done already; its answer is for the token that was shown then"
            raise Conflict(message) from None
        headers, body = msgspec.msgpack.decode(opened, type=tuple[dict[str, str], bytes])
        return Response(body, row["status"], {**headers, "idempotency-replayed": "true"})

    def _sealed(self, response: Response) -> bytes:
        kept = {name: value for name, value in response.headers.items() if name in {"content-type", "etag", "location"}}
        nonce = os.urandom(_NONCE_BYTES)
        return nonce + AESGCM(self.secret).encrypt(nonce, msgspec.msgpack.encode((kept, bytes(response.body))), None)
