"""A finite prefix cache like vLLM's: full blocks of 16 tokens by a chain of hashes, least recently used out first.

A block's hash covers everything before it, so a hit always is a prefix. The last token of a prompt is never served from
the cache, because its result is what the first output token is computed from.
"""

from collections import OrderedDict
from collections.abc import Sequence

from gateway.dev.engine.tokenizer import TOKEN_BYTES, count_tokens

BLOCK_TOKENS = 16
_BLOCK_BYTES = BLOCK_TOKENS * TOKEN_BYTES


def block_hashes(prompt: bytes, salt: str | None = None) -> list[int]:
    """Return the chained hash of every full block of `prompt`. Prompts with another `salt` share nothing."""
    value = hash(salt)
    hashes = []
    for end in range(_BLOCK_BYTES, len(prompt) + 1, _BLOCK_BYTES):
        value = hash((value, prompt[end - _BLOCK_BYTES : end]))
        hashes.append(value)
    return hashes


class PrefixCache:
    """Blocks by hash, at most `capacity_tokens` in all."""

    def __init__(self, capacity_tokens: int) -> None:
        self._capacity_blocks = capacity_tokens // BLOCK_TOKENS
        self._blocks: OrderedDict[int, None] = OrderedDict()

    def cached_tokens(self, prompt: bytes, hashes: Sequence[int]) -> int:
        """Return how many leading tokens of `prompt` are in the cache: a multiple of 16, less than the whole prompt."""
        hits = 0
        for value in hashes[: (count_tokens(prompt) - 1) // BLOCK_TOKENS]:
            if value not in self._blocks:
                break
            hits += 1
        return hits * BLOCK_TOKENS

    def store(self, hashes: Sequence[int]) -> None:
        """Keep the blocks of a prompt, the first of them longest: the tail is of no use without the prefix."""
        for value in reversed(hashes):
            self._blocks[value] = None
            self._blocks.move_to_end(value)
        while len(self._blocks) > self._capacity_blocks:
            self._blocks.popitem(last=False)
