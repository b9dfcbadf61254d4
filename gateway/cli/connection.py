"""Plain HTTP for logging in: to a gateway that knows nobody yet, and to the identity provider it names.

Every wait is bounded, and what comes back is bounded JSON. TLS is checked, and no credential goes out in the clear.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Self
from urllib.parse import urlsplit

import httpx2
import msgspec

from gateway.cli.answers import error_of, printable
from gateway.cli.on_gateway import trusting
from gateway.cli.place import check_private, is_loopback
from gateway.errors import GatewayError, Unavailable

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from types import TracebackType

TIMEOUT_S: Final = 30.0
CONNECT_TIMEOUT_S: Final = 5.0
ANSWER_BYTES_MAX: Final = 2**20


class Connection:
    """Asks servers by absolute addresses, as a context manager."""

    def __init__(self, ca_file: Path | None = None, *, insecure_http: bool = False) -> None:
        self._insecure_http = insecure_http
        timeout = httpx2.Timeout(TIMEOUT_S, connect=CONNECT_TIMEOUT_S)
        trust = trusting(ca_file)
        self._outside = httpx2.Client(verify=trust, timeout=timeout)
        # A proxy of the environment is for what lies outside; who is on this machine is asked directly.
        self._here = httpx2.Client(verify=trust, timeout=timeout, trust_env=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._outside.close()
        self._here.close()

    def get(self, url: str) -> Any:
        """Return the document at `url`. Raises GatewayError, Unavailable, ConfigError."""
        return self._done("GET", url)

    def post(self, url: str, document: object, credential: str | None = None) -> Any:
        """Return what the gateway answers to a document. Raises as `get` does."""
        headers = {"content-type": "application/json"}
        if credential is not None:
            headers["authorization"] = f"Bearer {credential}"
        return self._done("POST", url, headers=headers, content=msgspec.json.encode(document))

    def form(self, url: str, fields: Mapping[str, str]) -> tuple[int, Any]:
        """Return status and document of what a provider answers to a form, errors of OAuth included.

        Raises GatewayError for what is no JSON, Unavailable, ConfigError.
        """
        status, body = self._ask("POST", url, data=dict(fields))
        try:
            return status, msgspec.json.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError):
            raise GatewayError(f"{_host(url)} answers with status {status} and without JSON") from None

    def _done(self, method: str, url: str, **sent: Any) -> Any:
        status, body = self._ask(method, url, **sent)
        if status != 200:
            raise error_of(status, body, _host(url), None)
        try:
            return msgspec.json.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError):
            raise GatewayError(f"{_host(url)} answers with something else than JSON: is it a gateway?") from None

    def _ask(self, method: str, url: str, **sent: Any) -> tuple[int, bytes]:
        check_private(url, insecure_http=self._insecure_http)
        client = self._here if is_loopback(urlsplit(url).hostname or "") else self._outside
        try:
            with client.stream(method, url, **sent) as response:
                body = bytearray()
                for piece in response.iter_bytes():
                    body += piece
                    if len(body) > ANSWER_BYTES_MAX:
                        raise GatewayError(f"{_host(url)} answers with more than {ANSWER_BYTES_MAX:,} bytes")
                return response.status_code, bytes(body)
        except (httpx2.TransportError, httpx2.InvalidURL) as error:
            reason = printable(" ".join(str(error).split()))[:300] or type(error).__name__
            if "CERTIFICATE_VERIFY_FAILED" in reason:
                reason = f"its certificate is not trusted ({reason}); --ca-file names another authority"
            raise Unavailable(f"cannot reach {_host(url)}: {reason}") from None


def _host(url: str) -> str:
    return printable(urlsplit(url).netloc)
