"""Stand-ins for litellm's answers, which are pydantic models whose fields can be reached by name and dumped."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any


class Model(SimpleNamespace):
    """An answer or a part of one."""

    def model_dump(self, *, exclude_none: bool, warnings: bool) -> dict[str, Any]:
        """Return the fields as plain values, as pydantic does."""
        assert exclude_none
        assert not warnings
        return {name: _plain(value) for name, value in vars(self).items() if value is not None}


def chunk(content: str | None = None, *, finish_reason: str | None = None, usage: Model | None = None) -> Model:
    """Return one chunk of a stream as litellm makes them: its usage chunk has a choice, too."""
    choice = Model(index=0, delta=Model(content=content), finish_reason=finish_reason)
    return Model(id="c", model="m", object="chat.completion.chunk", choices=[choice], usage=usage)


def _plain(value: Any) -> Any:
    if isinstance(value, Model):
        return value.model_dump(exclude_none=True, warnings=False)
    return [_plain(item) for item in value] if isinstance(value, list) else value
