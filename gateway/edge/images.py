"""Refuses prompts that would send an engine to an address: of an image, a sound, a film or a file.

An engine fetches such addresses from inside the network it stands in, and litellm does so within the gateway itself.
`data:` may always pass; what else may is told by the model's `media_hosts`. Engines resolve names by themselves, so no
look at a name can promise where it will lead: see docs/decisions/0006-only-data-addresses.md.
"""

from __future__ import annotations

import ipaddress
import json
import re
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import msgspec

from gateway.domain.call import NO_MEDIA, InlineMedia
from gateway.domain.public_addresses import is_public
from gateway.errors import ImageAddressRefused, InvalidRequest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from gateway.domain.call import Fields

ANY_PUBLIC_HOST = "*"
PLACE_CHARS_MAX = 200

_ADDRESSES = frozenset({"image_url", "video_url", "audio_url", "file_url"})
"""Keys whose value is an address, or an object with a `url`."""
_ENCODED = frozenset({"file_id", "file_data"})
"""Keys whose value is an id or base64, and an address to some: neither of the others holds a colon."""
_SOUND = "input_audio"
_BARE = frozenset({"image", "video", "audio"})
"""Keys whose value is an address, a file's name or base64 to some, and any text to others."""
_MEDIA = ("image", "video", "audio", "document", "file")
"""An object whose `type` holds one of these, or is `url`, has an address in its `url`."""

_NEVER_FETCHED = frozenset(
    {"model", "stream", "stream_options", "n", "max_tokens", "max_completion_tokens", "temperature", "top_p", "stop"}
    | {"tools", "tool_choice", "functions", "response_format", "metadata", "text", "prompt_cache_key", "user"}
)
"""Fields that hold no prompt. What tools are described by is full of addresses that nobody goes to."""

_SUSPECT = re.compile(
    rb'"[A-Za-z_]{0,11}+'
    rb'(?:"(?:(?<=[uU][rR][lL]")|(?<=[eE]_[iI][dD]")|(?<=[eE]_[dD][aA][tT][aA]")|(?<=[tT]_[aA][uU][dD][iI][oO]")'
    rb'|(?<="(?:[iI][mM][aA][gG][eE]|[vV][iI][dD][eE][oO]|[aA][uU][dD][iI][oO])")[ \t\r\n]*+:)'
    rb"|\\u00[4-7])"
)
"""Finds every string of JSON that could be one of the keys, whatever its case and its escapes.

A key is a string, so it begins with a quote. No letter beyond ASCII is one of its letters in another case, so all of
them stand there as they are, or the first that does not is an escape `\\u00..` after at most eleven that do. Other
escapes of letters are no JSON, and the body has been decoded. A quote is rare enough in a prompt that this costs no
more than the search for a word; who mentions these keys in a text has its quotes escaped, and is not found. The bare
words are sought with their colon: `"type": "image"` is in every message with an image.
"""

_decode_items = msgspec.json.Decoder(list[msgspec.Raw]).decode

_HTTP_ADDRESS = re.compile(
    r"https?://(?P<host>\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9_.-]{1,253})(?::[0-9]{1,5})?(?:/[!-~]*)?"
)
"""The addresses that all parsers read alike: no userinfo, no escapes, backslashes or foreign letters in the host."""
_ADDRESS_LIKE = re.compile(
    r"[\0- ]*(?:[a-z][a-z0-9+.\t\r\n-]*:(?! )|[/\\][\t\r\n]*[/\\])"
    r"|.*\.(?:png|jpe?g|webp|gif|bmp|tiff?|mp4|mov|avi|mkv|webm|wav|mp3|flac|ogg)\s*\Z",
    re.IGNORECASE | re.DOTALL,
)
"""A text that begins as an address does, or ends as the name of a file does; base64 has neither colon nor dot."""
_NUMBER = re.compile(r"0x[0-9a-f]*|[0-9]+")
_PRIVATE_ENDINGS = (".localhost", ".local", ".internal", ".intranet", ".lan", ".home", ".corp", ".private", ".arpa")


class _Object(list[tuple[str, Any]]):
    """A JSON object with all its keys, doubled ones too: engines differ in which of them they take."""


class _Step(NamedTuple):
    """A place in the body: where it is within what is around it."""

    around: _Step | None
    at: str | int


_Place: TypeAlias = "tuple[_Step, Any]"


def refuse_addresses(fields: Fields, hosts: tuple[str, ...]) -> InlineMedia:
    """Look through the fields that engines could find an address in, and return the media that are in them inline.

    Args:
        fields: the body's top level.
        hosts: of addresses that may pass beside `data:`, in lower case: names, `.name` for all names below it,
            ANY_PUBLIC_HOST for all that do not look private.

    Raises:
        ImageAddressRefused: there is an address that may not be fetched; `param` names the place.
        InvalidRequest: a field that may hold addresses is nested too deeply or is no UTF-8.
    """
    media = NO_MEDIA
    for name, raw in fields.items():
        if name not in _NEVER_FETCHED and _SUSPECT.search(raw) is not None:
            inline = _look_through(name, raw, hosts)
            media = InlineMedia(media.size_bytes + sum(inline), media.items + len(inline))
    return media


def _look_through(name: str, raw: msgspec.Raw, hosts: tuple[str, ...]) -> list[int]:
    """Return the sizes of the `data:` addresses."""
    root = _Step(None, name)
    inline: list[int] = []
    try:
        if bytes(memoryview(raw)[:1]) != b"[":
            return _look_at(root, raw, hosts)
        for number, item in enumerate(_decode_items(raw)):
            if _SUSPECT.search(item) is not None:
                inline += _look_at(_Step(root, number), item, hosts)
    except RecursionError:
        raise InvalidRequest(f"'{_named(root)}' is nested too deeply", param=_named(root)) from None
    except UnicodeDecodeError:
        raise InvalidRequest(f"'{_named(root)}' is not UTF-8", param=_named(root)) from None
    return inline


def _look_at(place: _Step, raw: msgspec.Raw, hosts: tuple[str, ...]) -> list[int]:
    value = read_all_keys(bytes(raw).decode(), _Object)
    inline: list[int] = []
    for step, address in _addresses((place, value)):
        if not may_pass(address, hosts):
            raise ImageAddressRefused(refusal(hosts), param=_named(step))
        if address.startswith("data:"):
            inline.append(len(address))
    return inline


def read_all_keys(document: str | bytes, pairs: Callable[[list[tuple[str, Any]]], object]) -> Any:
    """Return a JSON document, each object as what `pairs` makes of its keys and values, doubled ones too.

    Numbers are left out. Raises ValueError for what is no JSON or no UTF-8, RecursionError for what is too deep.
    """
    return json.loads(document, object_pairs_hook=pairs, parse_int=_unread, parse_float=_unread, parse_constant=_unread)


def _unread(_number: str) -> None:
    """Leave a number alone: a long one takes long to be read."""


def _addresses(root: _Place) -> Iterator[tuple[_Step, str]]:
    """Yield every text that an engine could take for an address to go to."""
    places = [root]
    while places:
        step, value = places.pop()
        if isinstance(value, _Object):
            kinds = {item.lower() for key, item in value if key.lower() == "type" and isinstance(item, str)}
            is_media = any(kind == "url" or any(word in kind for word in _MEDIA) for kind in kinds)
            for key, item in value:
                if kinds == {"tool_use"} and key == "input":
                    continue  # what a model gave to a tool
                inner = _Step(step, key)
                yield from ((inner, text) for text in _in_pair(key.lower(), item, is_media=is_media))
                if isinstance(item, list):
                    places.append((inner, item))
        elif isinstance(value, list):
            places += ((_Step(step, number), item) for number, item in enumerate(value) if isinstance(item, list))


def _in_pair(key: str, value: Any, *, is_media: bool) -> Iterator[str]:
    if key in _ADDRESSES or (key == "url" and is_media):
        yield from _texts(value, {"url"})
    elif key in _ENCODED:
        yield from (text for text in _texts(value, set()) if ":" in text)
    elif key in _BARE:
        yield from (text for text in _texts(value, {"url"}) if _ADDRESS_LIKE.match(text) is not None)
    elif key == _SOUND:
        yield from (text for text in _texts(value, {"data", "url"}) if ":" in text)


def _texts(value: Any, keys: set[str]) -> Iterator[str]:
    """Yield the value when it is a text, the texts under these keys when it is an object, those in it when a list."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, _Object):
        yield from (item for key, item in value if key.lower() in keys and isinstance(item, str))
    elif isinstance(value, list):
        for item in value:
            if isinstance(item, _Object | str):
                yield from _texts(item, keys)


def may_pass(address: str, hosts: tuple[str, ...]) -> bool:
    """Return whether an address may be fetched."""
    if address.startswith("data:"):
        return True
    found = _HTTP_ADDRESS.fullmatch(address) if hosts else None
    if found is None:
        return False
    host = found["host"].lower().removesuffix(".")
    if any(host == known or (known.startswith(".") and host.endswith(known)) for known in hosts):
        return True
    return ANY_PUBLIC_HOST in hosts and _looks_public(host)


def _looks_public(host: str) -> bool:
    """Whether nothing about a host says that it is inside: it may be there all the same."""
    last = host.rpartition(".")[2]
    # An address in one of the many spellings: only the plain one is read alike by all.
    if host.startswith("[") or _NUMBER.fullmatch(last):
        try:
            return is_public(ipaddress.IPv6Address(host[1:-1]) if host[0] == "[" else ipaddress.IPv4Address(host))
        except ValueError:
            return False
    return "." in host and not f".{host}".endswith(_PRIVATE_ENDINGS) and all(host.split("."))


def refusal(hosts: tuple[str, ...]) -> str:
    """Return what a client is told whose address may not be fetched."""
    if not hosts:
        return "images and other media must be in the request itself, as 'data:' addresses: nothing is fetched for it"
    return "this address may not be fetched; send 'data:' addresses, or addresses of hosts that the model allows"


def _named(step: _Step) -> str:
    """Return a place as people write it, `messages[0].content[1].image_url`, of printable ASCII and bounded."""
    steps: list[str] = []
    at: _Step | None = step
    while at is not None:
        steps.append(f"[{at.at}]" if isinstance(at.at, int) else f".{at.at}")
        at = at.around
    name = "".join(reversed(steps))[1:]
    return "".join(c if " " <= c <= "~" else "?" for c in name[:PLACE_CHARS_MAX])
