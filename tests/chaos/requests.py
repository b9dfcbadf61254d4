"""What clients ask for: streams and whole answers at every endpoint, tool calls, and hang-ups at any moment."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tests.support.chat import chat, completion, embedding, message, response, tool

if TYPE_CHECKING:
    import random

HANG_UP_SHARE = 0.15
LONG_SHARE = 0.1
TOKENS = (5, 60)
TOKENS_LONG = (150, 400)
"""Longer than the time between two checkpoints, at the engines' pace."""
WORDS = (5, 120)
EVENTS_BEFORE_HANG_UP = (0, 30)
WAIT_BEFORE_HANG_UP_S = (0.05, 1.5)
LOOKUP = tool("look_up", word="string")


@dataclass(frozen=True)
class Wanted:
    """One request. `hang_up_after` events of a stream, or seconds of a whole answer, the client leaves; None: never."""

    endpoint: str
    document: dict[str, Any]
    streamed: bool
    hang_up_after: float | None

    @property
    def path(self) -> str:
        """The address."""
        return f"/v1/{self.endpoint}"


def drawn(rng: random.Random, marker: str) -> Wanted:
    """Return a request of any kind, with `marker` in its prompt."""
    endpoint = rng.choices(
        ["chat/completions", "completions", "messages", "responses", "embeddings"], [50, 15, 15, 15, 5]
    )[0]
    streamed = endpoint != "embeddings" and rng.random() < 0.7
    tokens = rng.randint(*(TOKENS_LONG if rng.random() < LONG_SHARE else TOKENS))
    document = _document(rng, endpoint, f"{marker} {'word ' * rng.randint(*WORDS)}", tokens)
    if streamed:
        document["stream"] = True
        if endpoint in {"chat/completions", "completions"}:
            document["stream_options"] = {"include_usage": True}
    return Wanted(endpoint, document, streamed, _hang_up(rng, streamed=streamed))


def _document(rng: random.Random, endpoint: str, text: str, tokens: int) -> dict[str, Any]:
    if endpoint == "embeddings":
        return embedding(text)
    if endpoint == "completions":
        return completion(text, max_tokens=tokens, ignore_eos=True)
    if endpoint == "responses":
        return response(text, max_output_tokens=tokens)
    if endpoint == "messages":
        return message(text, max_tokens=tokens)
    if rng.random() < 0.25:
        return chat(f'call look_up {{"word": "{text[:60].strip()}"}}', tools=[LOOKUP])
    return chat(text, max_tokens=tokens, ignore_eos=True)


def _hang_up(rng: random.Random, *, streamed: bool) -> float | None:
    if rng.random() >= HANG_UP_SHARE:
        return None
    return float(rng.randint(*EVENTS_BEFORE_HANG_UP)) if streamed else rng.uniform(*WAIT_BEFORE_HANG_UP_S)
