"""What of `/v1/responses` needs an engine that remembers: refused, or told not to remember.

An engine keeps responses by id for whoever asks: across tenants, and on that engine alone. A background response would
be generated after its request has ended, where nobody counts it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from gateway.errors import InvalidRequest

if TYPE_CHECKING:
    from gateway.domain.call import Fields

_REFUSED = {
    "background": "responses are not generated in the background; leave 'background' out, and set 'stream'",
    "conversation": "conversations are not kept; send the whole of it in 'input'",
    "previous_response_id": "responses are not kept; send the whole conversation in 'input'",
}
STATEFUL = frozenset({"store", *_REFUSED})

_UNSET = frozenset({b"null", b"false"})


def keep_stateless(fields: Fields) -> None:
    """Set `store` to false, in place. Raises InvalidRequest for what cannot be done without a memory."""
    for name in _REFUSED & fields.keys():
        if bytes(fields[name]) not in _UNSET:
            raise InvalidRequest(_REFUSED[name], param=name)
        del fields[name]
    fields["store"] = msgspec.Raw(b"false")
