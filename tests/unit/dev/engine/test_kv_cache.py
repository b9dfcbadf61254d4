"""The KV memory: only whole prefixes hit, running requests hold what they have, and nothing outgrows the capacity."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.dev.engine.kv_cache import BLOCK_TOKENS, Allocation, KvCache, block_hashes, blocks_of
from gateway.dev.engine.tokenizer import TOKEN_BYTES, count_tokens


def block(letter: str) -> bytes:
    return letter.encode() * BLOCK_TOKENS * TOKEN_BYTES


def allocate(cache: KvCache, prompt: bytes, salt: object = None) -> Allocation | None:
    assert salt is None or isinstance(salt, str)
    return cache.allocate(count_tokens(prompt), block_hashes(prompt, salt))


def run(cache: KvCache, prompt: bytes, salt: str | None = None) -> int:
    """Compute a prompt and let it go; return how many of its tokens were cached."""
    allocation = allocate(cache, prompt, salt)
    assert allocation is not None
    cached = cache.find(allocation)
    cache.store(allocation)
    cache.release(allocation)
    return cached


@pytest.mark.parametrize(
    ("prompt", "tokens"),
    [
        (block("a") + block("b") + b"!", 2 * BLOCK_TOKENS),
        (block("a") + block("c"), BLOCK_TOKENS),
        (block("b") + block("b"), 0),
        # The last token is never taken from the cache, so the last full block is not either.
        (block("a") + block("b"), BLOCK_TOKENS),
        (block("a")[:-1], 0),
        (b"", 0),
    ],
)
def test_only_a_whole_prefix_of_blocks_is_cached(prompt: bytes, tokens: int) -> None:
    cache = KvCache(1_000)
    run(cache, block("a") + block("b"))
    assert run(cache, prompt) == tokens
    assert cache.held_blocks == 0


def test_another_salt_shares_nothing() -> None:
    cache = KvCache(1_000)
    prompt = block("a") + b"!"
    run(cache, prompt, "one")
    assert (run(cache, prompt, "one"), run(cache, prompt, "two"), run(cache, prompt)) == (BLOCK_TOKENS, 0, 0)


def test_a_full_cache_forgets_tails_before_prefixes_and_the_oldest_first() -> None:
    cache = KvCache(4 * BLOCK_TOKENS)
    long, other = block("a") + block("b"), block("c") + block("d") + b"!"
    run(cache, long)
    run(cache, other)
    assert run(cache, long + b"!") == BLOCK_TOKENS
    assert run(cache, block("e") * 4) == 0
    assert run(cache, other) == 0


def test_what_was_used_again_is_kept_before_what_was_not() -> None:
    cache = KvCache(5 * BLOCK_TOKENS)
    often, once = block("a") + b"!", block("b") + b"!"
    for prompt in (often, once, often):
        run(cache, prompt)
    run(cache, block("c") * 4)
    assert (run(cache, often), run(cache, once)) == (BLOCK_TOKENS, 0)


def test_what_runs_takes_room_from_what_is_cached() -> None:
    cache = KvCache(4 * BLOCK_TOKENS)
    run(cache, block("a") * 2)
    assert cache.cached_blocks == 2
    running = allocate(cache, block("b") * 3)
    assert running is not None
    assert (cache.held_blocks, cache.cached_blocks, cache.usage) == (3, 1, 0.75)
    cache.grow(running, 1)
    assert (cache.held_blocks, cache.cached_blocks) == (4, 0)


def test_a_prompt_waits_for_room_unless_it_shares_what_others_hold() -> None:
    cache = KvCache(4 * BLOCK_TOKENS)
    prompt = block("a") + block("b") + b"!"
    first = allocate(cache, prompt)
    assert first is not None
    assert allocate(cache, block("c") * 2) is None
    assert allocate(cache, prompt) is None, "what is not computed yet cannot be shared"
    cache.store(first)
    second = allocate(cache, prompt)
    assert second is not None
    assert (cache.find(second), cache.held_blocks) == (2 * BLOCK_TOKENS, 4)
    cache.release(first)
    assert cache.held_blocks == 3, "the second still holds what both shared"
    cache.release(second)
    assert (cache.held_blocks, cache.cached_blocks) == (0, 2)


def test_a_prompt_larger_than_everything_runs_alone() -> None:
    cache = KvCache(2 * BLOCK_TOKENS)
    alone = allocate(cache, block("a") * 5)
    assert alone is not None
    assert cache.usage == 1.0
    assert allocate(cache, b"!") is None
    cache.release(alone)
    assert (cache.held_blocks, cache.cached_blocks) == (0, 0)


# Prompts of few letters, so that prefixes are often equal; each runs while some of the earlier ones still do.
prompts = st.text("ab", min_size=1, max_size=6).map(lambda text: b"".join(block(letter) for letter in text)[:-1])
steps = st.lists(st.tuples(prompts, st.integers(0, 3), st.integers(0, 40)), max_size=30)


def played(capacity_blocks: int, arrivals: list[tuple[bytes, int, int]]) -> list[int]:
    """Let prompts come and go and return their hits, checked against every prompt that was ever computed."""
    cache = KvCache(capacity_blocks * BLOCK_TOKENS)
    running: list[Allocation] = []
    computed: set[bytes] = set()
    hits = []
    for prompt, ended, generated in arrivals:
        for _ in range(min(ended, len(running))):
            cache.release(running.pop(0))
        allocation = allocate(cache, prompt)
        if allocation is None:
            assert cache.held_blocks + blocks_of(count_tokens(prompt)) > cache.capacity_blocks
            continue
        cached = cache.find(allocation)
        assert cached % BLOCK_TOKENS == 0
        assert cached < count_tokens(prompt)
        assert cached == 0 or any(one.startswith(prompt[: cached * TOKEN_BYTES]) for one in computed)
        cache.store(allocation)
        cache.grow(allocation, generated)
        computed.add(prompt)
        hits.append(cached)
        running.append(allocation)
        assert cache.cached_blocks == 0 or cache.held_blocks + cache.cached_blocks <= cache.capacity_blocks
    for allocation in running:
        cache.release(allocation)
    assert cache.held_blocks == 0
    assert cache.cached_blocks <= cache.capacity_blocks
    return hits


@given(capacity_blocks=st.integers(1, 12), arrivals=steps)
def test_a_hit_is_a_prefix_that_was_computed_and_the_memory_is_never_outgrown(
    capacity_blocks: int, arrivals: list[tuple[bytes, int, int]]
) -> None:
    assert played(capacity_blocks, arrivals) == played(capacity_blocks, arrivals)


@given(arrivals=steps)
def test_with_room_for_all_the_longest_known_prefix_is_hit(arrivals: list[tuple[bytes, int, int]]) -> None:
    seen: list[bytes] = []
    for (prompt, _, _), cached in zip(arrivals, played(100_000, arrivals), strict=True):
        blocks = range(count_tokens(prompt) // BLOCK_TOKENS + 1)
        known = [
            count
            for count in blocks
            if any(
                len(one) >= (end := count * BLOCK_TOKENS * TOKEN_BYTES) and one[:end] == prompt[:end] for one in seen
            )
        ]
        assert cached == max(known, default=0) * BLOCK_TOKENS
        seen.append(prompt)
