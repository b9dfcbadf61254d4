"""Remembers how much of a session's last prompt its engine had cached, where that makes a prompt count for less."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from uuid import UUID

    from gateway.domain.call import Call
    from gateway.domain.usage import TokenUsage

SESSIONS_MAX = 50_000
"""Sessions remembered by one replica; the one that was used longest ago is forgotten first."""


class CachedShares:
    """The share of each session's last prompt that was cached, from 0 to 1, by organization, model and session."""

    def __init__(self, sessions_max: int = SESSIONS_MAX) -> None:
        self._sessions_max = sessions_max
        self._shares: OrderedDict[tuple[UUID, str, str], float] = OrderedDict()

    def __len__(self) -> int:
        return len(self._shares)

    def expected(self, organization_id: UUID, call: Call) -> float:
        """Return the share to expect of a call's prompt: 0 where nothing is known, or caching makes no difference."""
        weights = call.model.weights
        if call.session is None or weights.cached_input == weights.input:
            return 0.0
        key = (organization_id, call.model.name, call.session)
        share = self._shares.get(key)
        if share is None:
            return 0.0
        self._shares.move_to_end(key)
        return share

    def learn(self, organization_id: UUID, call: Call, used: TokenUsage) -> None:
        """Take in what an engine said of a call's prompt."""
        weights = call.model.weights
        if call.session is None or weights.cached_input == weights.input or used.prompt <= 0:
            return
        key = (organization_id, call.model.name, call.session)
        self._shares[key] = min(max(used.cached / used.prompt, 0.0), 1.0)
        self._shares.move_to_end(key)
        if len(self._shares) > self._sessions_max:
            self._shares.popitem(last=False)
