"""Refuses addresses that text-generation-inference would fetch out of the text of a prompt.

That engine writes the images of a prompt into its text as `![](address)`, and then fetches whatever stands in the whole
text like this: who wrote it, and in which field, it does not know any more.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from gateway.edge.images import may_pass, read_all_keys, refusal
from gateway.errors import ImageAddressRefused, InvalidRequest

if TYPE_CHECKING:
    from collections.abc import Iterator

_SUSPECT = re.compile(rb'\][("]|\\u00[25]')
"""`](`, also where one part of a message ends with `]` and the next begins with `(`, and escapes of `![](`."""

_IMAGE = re.compile(r"!\[\]\((?P<address>https?://[^)]*)(?P<end>\)?)", re.IGNORECASE)
"""What is fetched; without an end, the address goes on in what the engine's template puts behind it."""


def refuse_markdown_images(body: bytes, hosts: tuple[str, ...]) -> None:
    """Look for `![](http…)` in all the texts of a body. `hosts`: as for `refuse_addresses`.

    Raises:
        ImageAddressRefused: there is one that may not be fetched; `param` is the field that holds it.
        InvalidRequest: the body is nested too deeply or cannot be read.
    """
    if _SUSPECT.search(body) is None:
        return
    try:
        # Objects become tuples of pairs: all of doubled keys are seen.
        fields = read_all_keys(body, tuple)
    except RecursionError:
        raise InvalidRequest("the body is nested too deeply") from None
    except ValueError:
        raise InvalidRequest("the body is not valid JSON in UTF-8") from None
    for name, value in fields:
        for text in _texts(value):
            for image in _IMAGE.finditer(text):
                if not image["end"] or not may_pass(image["address"], hosts):
                    raise ImageAddressRefused(refusal(hosts), param=name[:100])


def _texts(root: Any) -> Iterator[str]:
    """Yield every text, keys included (the engine writes tools as JSON), and the parts of every list joined."""
    places = [root]
    while places:
        value = places.pop()
        if isinstance(value, str):
            yield value
        elif isinstance(value, tuple):
            for key, item in value:
                yield key
                places.append(item)
        elif isinstance(value, list):
            yield "".join(_parts(value))
            places += value


def _parts(items: list[Any]) -> Iterator[str]:
    """Yield what the engine makes of the parts of a message."""
    for item in items:
        for key, value in item if isinstance(item, tuple) else ():
            if key == "text" and isinstance(value, str):
                yield value
            elif key == "image_url" and isinstance(value, tuple):
                yield from (f"![]({url})" for name, url in value if name == "url" and isinstance(url, str))
