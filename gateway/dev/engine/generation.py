"""What an answer says, token by token, decided before it is paced out.

The same request always gets the same text: three-letter words, one a token, drawn from its `seed`, or from the prompt
where there is none. Every piece is exactly one generated token; the last one carries the finish reason, which for
`stop` is an end token without text that counts like any other, as in vLLM.
"""

import random
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from gateway.dev.engine.tokenizer import token_texts
from gateway.dev.engine.tools import ToolCall

_WORDS = (
    "air ant arc ash bay bee bud cap cob cup dam day dew dot ear eel elm fen fig fir fog fox gap gem hay hen hut ice "
    "ink ivy jar jay key kin lid log map mud net nut oak oar oat owl pan pea pen pin pot rag ray rim rod rye sap sea "
    "sky sod sun tar tea tin toe tub urn van vat wax web yam yew "
)
WORDS = token_texts(_WORDS)

Kind = Literal["content", "reasoning", "tool_name", "tool_arguments", "silent"]
FinishReason = Literal["stop", "length", "tool_calls"]


class Piece(NamedTuple):
    """One generated token: its text and where the text belongs. `silent` tokens make no chunk of their own."""

    kind: Kind
    text: str
    call: int = 0


END = Piece("silent", "")


@dataclass(frozen=True, slots=True)
class Answer:
    """One choice: its pieces (one per token, at least one), how it ends, and the calls that its pieces refer to."""

    pieces: Sequence[Piece]
    finish_reason: FinishReason
    stop_reason: str | None = None
    calls: Sequence[ToolCall] = ()

    def text_of(self, kind: Kind) -> str:
        """Return the joined text of one kind of piece."""
        return "".join(piece.text for piece in self.pieces if piece.kind == kind)


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to say.

    `max_tokens` is a bound, at least 1; `output_tokens` is the length aimed at, the end token included.
    """

    seed: int
    max_tokens: int
    output_tokens: int
    reasoning_tokens: int = 0
    text: str | None = None
    stops: tuple[str, ...] = ()
    include_stop: bool = False
    ignore_eos: bool = False
    calls: Sequence[ToolCall] = ()


def seed_of(seed: int | None, prompt: bytes, choice: int) -> int:
    """Return the seed of one choice: the request's own, else the prompt's checksum, plus the choice's index."""
    return (zlib.crc32(prompt) if seed is None else seed) + choice


def answer(wanted: Wanted) -> Answer:
    """Return one choice. Tool calls, where there are any, are said in place of text."""
    dice = random.Random(wanted.seed)  # noqa: S311 - the words of a simulated model are no secret
    pieces = [
        Piece("reasoning", word) for word in dice.choices(WORDS, k=min(wanted.reasoning_tokens, wanted.max_tokens))
    ]
    if pieces:
        pieces.append(Piece("silent", ""))
    if wanted.calls:
        pieces.extend(_call_pieces(wanted.calls))
        return _cut([*pieces, END], wanted, "tool_calls", calls=wanted.calls)
    texts = token_texts(wanted.text) if wanted.text is not None else _words(dice, wanted)
    stopped = _stop(texts, wanted)
    if stopped is not None:
        kept, stop_reason = stopped
        pieces.extend(Piece("content", text) for text in kept)
        return _cut(pieces, wanted, "stop", stop_reason)
    pieces.extend(Piece("content", text) for text in texts)
    return _cut([*pieces, END], wanted, "stop")


def _words(dice: random.Random, wanted: Wanted) -> list[str]:
    """Return the words of an answer: one less than its tokens, unless it is to run into `max_tokens`."""
    count = wanted.max_tokens if wanted.ignore_eos else min(wanted.output_tokens - 1, wanted.max_tokens)
    return dice.choices(WORDS, k=count)


def _call_pieces(calls: Sequence[ToolCall]) -> list[Piece]:
    """Return the tokens of calls as a model would write them; the name is known with the last token of its head."""
    pieces: list[Piece] = []
    for index, call in enumerate(calls):
        head = token_texts(f"<tool_call>{call.name}")
        pieces.extend(Piece("silent", "") for _ in head[1:])
        pieces.append(Piece("tool_name", call.name, index))
        pieces.extend(Piece("tool_arguments", text, index) for text in token_texts(call.arguments))
    return pieces


def _stop(texts: Sequence[str], wanted: Wanted) -> tuple[list[str], str] | None:
    """Return the texts up to the token that completes the first stop string, cut before it, and that string."""
    if not wanted.stops:
        return None
    joined = "".join(texts)
    found = [(at, stop) for stop in wanted.stops if (at := joined.find(stop)) >= 0]
    if not found:
        return None
    at, stop = min(found)
    end = at + len(stop)
    shown = end if wanted.include_stop else at
    kept: list[str] = []
    position = 0
    for text in texts:
        kept.append(text[: max(0, shown - position)])
        position += len(text)
        if position >= end:
            break
    return kept, stop


def _cut(
    pieces: list[Piece],
    wanted: Wanted,
    reason: FinishReason,
    stop_reason: str | None = None,
    calls: Sequence[ToolCall] = (),
) -> Answer:
    if len(pieces) <= wanted.max_tokens:
        return Answer(pieces, reason, stop_reason, calls)
    return Answer(pieces[: wanted.max_tokens], "length", None, calls)
