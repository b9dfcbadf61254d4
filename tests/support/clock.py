"""A clock that stands still until a test moves it, in place of the module `time` in what it is put into."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import ModuleType

    import pytest


@dataclass
class Clock:
    """Monotonic seconds."""

    now_s: float = 1_000.0

    def monotonic(self) -> float:
        """Return the time."""
        return self.now_s

    @classmethod
    def put_into(cls, module: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Clock:
        """Return the clock that `module` goes by from now on."""
        clock = cls()
        monkeypatch.setattr(module, "time", clock)
        return clock
