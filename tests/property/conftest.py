"""How properties are tried: the same examples in every run, without a clock on any of them.

`pytest --hypothesis-profile=explore tests/property` tries others, and more of them.
"""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("penstock", deadline=None, derandomize=True, max_examples=100)
settings.register_profile("explore", deadline=None, max_examples=2_000)
settings.load_profile("penstock")
