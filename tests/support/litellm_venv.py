"""An environment with litellm, which cannot share one with the suite: it wants an older `openai` than the suite uses.

The gateway itself is taken from the checkout.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.support.venvs import Environment

if TYPE_CHECKING:
    from pathlib import Path

LITELLM = Environment("litellm", ("litellm",))


def litellm_python() -> Path:
    """Return the interpreter of the environment, made where it is missing: a minute, and 500 MB.

    Raises CalledProcessError when it cannot be made.
    """
    return LITELLM.python()
