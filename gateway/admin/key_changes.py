"""How API keys change: what they may be used for and until when, and their secret.

A key that is rotated keeps its id, its limits and its usage. Its new text counts at once and the one before for a
grace, in which clients move over; then nobody needs to remember to revoke it.
"""

import datetime as dt
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from gateway.admin.database import Database
from gateway.admin.keys import ApiKey, find_key
from gateway.admin.limit_values import REMOVED, Removal
from gateway.admin.names import checked_models, checked_name
from gateway.admin.networks import checked_networks
from gateway.admin.scope import Scope
from gateway.admin.times import LIFETIME_S_MAX
from gateway.authenticate.key import Peppers, rotated_key
from gateway.errors import Conflict, InvalidRequest

GRACE_DEFAULT: Final = dt.timedelta(hours=24)
GRACE_MAX: Final = dt.timedelta(days=30)

Texts: TypeAlias = tuple[str, ...] | Removal | None


@dataclass(frozen=True, slots=True)
class KeyChange:
    """What shall be different about a key. None leaves a value as it is, REMOVED takes it away: no name, every model,
    from anywhere, never expires.

    `expires_at` is aware.
    """

    name: str | Removal | None = None
    models: Texts = None
    addresses: Texts = None
    expires_at: dt.datetime | Removal | None = None

    @property
    def is_of_the_name_alone(self) -> bool:
        """Whether nothing is changed that a key may do."""
        return self.models is None and self.addresses is None and self.expires_at is None

    def takes_time_alone_from(self, key: ApiKey) -> bool:
        """Whether of what a key may do, nothing is changed but that it ends sooner."""
        end = self.expires_at
        sooner = isinstance(end, dt.datetime) and (key.expires_at is None or end <= key.expires_at)
        return sooner and self.models is None and self.addresses is None


@dataclass(frozen=True, slots=True)
class RotatedKey:
    """A key under a new secret. `key` is its whole new text, which is never shown again.

    `older_ended`: a text from before the last rotation would still have counted, and has ended now.
    """

    key: str = field(repr=False)
    about: ApiKey
    older_ended: bool


async def update_key(db: Database, scope: Scope, reference: str, change: KeyChange) -> ApiKey:
    """Change a key (id, public id or text), which acts within a second. An expired key may be prolonged.

    A key's holder may change its name and have it end sooner, as it may revoke it; what else it may do is for
    administrators of its team and above.

    Raises InvalidRequest, NotFound, Forbidden, and Conflict for a revoked key.
    """
    key = await find_key(db, scope, reference, lock=True)
    if key.status == "revoked":
        raise Conflict("the key is revoked, for ever: make a new one", param="key")
    if not (change.is_of_the_name_alone or change.takes_time_alone_from(key)):
        scope.require_team(key.team_id, "change what a key may do")
    if change == KeyChange():
        raise InvalidRequest("say what to change: name, models, addresses or expires_at")
    await db.execute(
        """
        UPDATE api_key SET name = coalesce($3, name),
            models_allowed = CASE WHEN $4 THEN $5 ELSE models_allowed END,
            addresses_allowed = CASE WHEN $6 THEN $7 ELSE addresses_allowed END,
            expires_at = CASE WHEN $8 THEN $9 ELSE expires_at END
        WHERE id = $1 AND organization_id = $2
        """,
        key.id,
        key.organization_id,
        _checked_name(change.name),
        change.models is not None,
        checked_models(change.models) if isinstance(change.models, tuple) else None,
        change.addresses is not None,
        checked_networks(change.addresses) if isinstance(change.addresses, tuple) else None,
        change.expires_at is not None,
        _checked_end(change.expires_at) if isinstance(change.expires_at, dt.datetime) else None,
    )
    return await find_key(db, scope, str(key.id))


async def rotate_key(
    db: Database, scope: Scope, peppers: Peppers, reference: str, *, grace: dt.timedelta = GRACE_DEFAULT
) -> RotatedKey:
    """Give a key (id, public id or text) a new secret under the newest pepper; the one before counts for `grace`, too.

    With no grace it ends within a second. One key has two secrets at most: what was left of an earlier grace ends now.

    Raises InvalidRequest for a grace below 0 or above GRACE_MAX, NotFound, and Conflict for a key that is revoked or
    expired.
    """
    if not dt.timedelta(0) <= grace <= GRACE_MAX:
        raise InvalidRequest(f"grace must be 0s to {GRACE_MAX.days}d", param="grace")
    key = await find_key(db, scope, reference, lock=True)
    if key.status == "revoked":
        raise Conflict("the key is revoked, for ever: make a new one", param="key")
    if key.status == "expired":
        raise Conflict("the key has expired: prolong it first, or make a new one", param="key")
    new = rotated_key(peppers, key.public_id)
    row = await db.fetchrow(
        """
        UPDATE api_key SET secret_hmac = $3, pepper_version = $4, rotated_at = now(),
            previous_secret_hmac = old.secret_hmac, previous_pepper_version = old.pepper_version,
            previous_expires_at = now() + $5::interval
        FROM api_key AS old
        WHERE api_key.id = $1 AND api_key.organization_id = $2 AND old.id = $1 AND old.organization_id = $2
        RETURNING old.previous_expires_at > now() AS older_ended
        """,
        key.id,
        key.organization_id,
        new.secret_hmac,
        new.pepper_version,
        grace,
    )
    assert row is not None, "held for update"
    return RotatedKey(new.text, await find_key(db, scope, str(key.id)), bool(row["older_ended"]))


def _checked_name(name: str | Removal | None) -> str | None:
    return "" if name is REMOVED or name == "" else name and checked_name(name)


def _checked_end(moment: dt.datetime) -> dt.datetime:
    left_s = (moment - dt.datetime.now(dt.UTC)).total_seconds()
    if left_s <= 0:
        raise InvalidRequest("expires_at is in the past; to end a key now, revoke it", param="expires_at")
    if left_s > LIFETIME_S_MAX:
        raise InvalidRequest("expires_at is more than ten years from now", param="expires_at")
    return moment
