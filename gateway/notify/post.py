"""Sends one signed event to one webhook, once: to an address that was looked at, in bounded time, reading no body."""

from __future__ import annotations

import datetime as dt
import email.utils
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import httpx2
import structlog

from gateway import __version__
from gateway.notify.destination import Unreachable, destinations
from gateway.notify.signing import signed_headers
from gateway.patience import Deadline

if TYPE_CHECKING:
    import ssl
    from types import TracebackType

    from gateway.authenticate.key import Peppers
    from gateway.domain.addresses import Network
    from gateway.notify.delivery_store import Delivery
    from gateway.notify.destination import Destination

ATTEMPT_S_MAX = 20.0
"""How long an attempt may take, names and connections to all addresses included."""
CONNECT_S_MAX = 5.0
ANSWER_S_MAX = 10.0
"""How long a receiver may take to answer: it should queue what it gets."""
ERROR_CHARS_MAX = 300
RETRY_AFTER_S_MAX = 86_400.0

GONE = 410

_log = structlog.get_logger("penstock.webhooks")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of an attempt. `status` is the receiver's, None when it gave none; `error` is empty on success."""

    status: int | None
    error: str = ""
    retry_after_s: float = 0.0

    @property
    def delivered(self) -> bool:
        """Whether the receiver has it."""
        return not self.error


class Post:
    """An HTTP client that forgets: no cookies, no proxies of the environment, no redirects, no connection is kept.

    A connection is to an address and not to a name, so one that was kept could be taken for another name's.
    """

    def __init__(self, peppers: Peppers, allowed: tuple[Network, ...], tls: ssl.SSLContext) -> None:
        self._peppers = peppers
        self._allowed = allowed
        self._client = httpx2.AsyncClient(
            verify=tls,
            timeout=httpx2.Timeout(ANSWER_S_MAX, connect=CONNECT_S_MAX),
            limits=httpx2.Limits(max_keepalive_connections=0),
            follow_redirects=False,
            trust_env=False,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._client.aclose()

    async def send(self, delivery: Delivery) -> Outcome:
        """Make one attempt; whatever goes wrong is the outcome."""
        keys = [key for source in delivery.secrets if (key := source.secret(self._peppers)) is not None]
        if not keys:
            return Outcome(None, "the pepper of its secret is not configured any more: rotate the secret")
        body = delivery.payload.encode()
        headers = signed_headers(keys, str(delivery.event_id), int(time.time()), body)
        headers |= {"content-type": "application/json", "user-agent": f"Penstock/{__version__}"}
        try:
            async with Deadline(ATTEMPT_S_MAX):
                return await self._send(delivery.url, headers, body)
        except Unreachable as error:
            return Outcome(None, str(error)[:ERROR_CHARS_MAX])
        except TimeoutError:
            return Outcome(None, f"no answer within {ATTEMPT_S_MAX:.0f} s")
        except httpx2.HTTPError as error:
            return Outcome(None, _said(error))
        except Exception as error:  # receivers are strangers: what one of them makes go wrong must not stop the others
            _log.exception("webhook_broken", webhook=str(delivery.webhook_id))
            return Outcome(None, f"a fault of the gateway ({type(error).__name__}); its log tells more")

    async def _send(self, url: str, headers: dict[str, str], body: bytes) -> Outcome:
        places = await destinations(url, self._allowed)
        for place in places[:-1]:
            try:
                return await self._post(place, headers, body)
            except (httpx2.ConnectError, httpx2.ConnectTimeout):
                continue
        return await self._post(places[-1], headers, body)

    async def _post(self, place: Destination, headers: dict[str, str], body: bytes) -> Outcome:
        url = place.url
        # The certificate is held against the name, although the connection is to an address.
        async with self._client.stream(
            "POST",
            url.copy_with(host=str(place.address), port=place.port),
            content=body,
            headers=headers | {"host": url.netloc.decode()},
            extensions={"sni_hostname": url.raw_host.decode()},
        ) as answer:
            return _outcome(answer)


def _outcome(answer: httpx2.Response) -> Outcome:
    status = answer.status_code
    if answer.is_success:
        return Outcome(status)
    if answer.is_redirect:
        return Outcome(status, f"it answered {status}: redirects are not followed; change the webhook's url")
    return Outcome(status, f"it answered {status}", retry_after_s(answer.headers.get("retry-after", "")))


def retry_after_s(text: str) -> float:
    """Return how long a receiver wants to be left alone: seconds or a date, bounded; 0 for anything else."""
    if text.isascii() and text.isdigit() and len(text) < 10:
        return min(float(text), RETRY_AFTER_S_MAX)
    try:
        moment = email.utils.parsedate_to_datetime(text)
    except (ValueError, OverflowError):  # an hour or a zone with many digits is the latter
        return 0.0
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=dt.UTC)
    return min(max((moment - dt.datetime.now(dt.UTC)).total_seconds(), 0.0), RETRY_AFTER_S_MAX)


def _said(error: httpx2.HTTPError) -> str:
    if isinstance(error, httpx2.ConnectTimeout):
        return f"no connection within {CONNECT_S_MAX:.0f} s"
    if isinstance(error, httpx2.TimeoutException):
        return f"no answer within {ANSWER_S_MAX:.0f} s"
    words = " ".join(str(error).split()) or type(error).__name__
    return f"{'cannot connect' if isinstance(error, httpx2.ConnectError) else 'broken'}: {words}"[:ERROR_CHARS_MAX]
