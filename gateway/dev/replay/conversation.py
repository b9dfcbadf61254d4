"""The text of a session: made up, the same for the same seed, each request the last one's with more after it.

A token is taken to be four bytes, three letters and a space. What was written of a conversation is kept as the bytes
that are sent, so that a turn costs what it adds, and the body is put together once for each request.
"""

import random
from typing import Final

import msgspec

from gateway.dev.replay.plan import MESSAGE_TOKENS, Turn, shared_tokens

TOKEN_BYTES: Final = 4
TOOLS: Final = 3
_TOOL_TOKENS = 38  # of a tool without a description
# Text is cut from one page of words, a chunk at a time from wherever the dice say.
_PAGE_TOKENS, _CHUNK_TOKENS = 65_536, 512
_SYLLABLES: Final = ("b", "d", "f", "g", "k", "l", "m", "n", "p", "r", "s", "t"), ("a", "e", "i", "o", "u")


class Texts:
    """Made-up text, and what all sessions of a replay share: system prompt and tools."""

    def __init__(self, seed: int, scale: float) -> None:
        dice = random.Random(f"{seed}/page")  # noqa: S311 - made-up words are no secret
        consonants, vowels = _SYLLABLES
        words = [f"{a}{b}{c} " for a in consonants for b in vowels for c in consonants]
        self._page = "".join(dice.choices(words, k=_PAGE_TOKENS))
        self.seed = seed
        shared = shared_tokens(scale) // (TOOLS + 1)
        self.system = _message(role="system", content=self.words(dice, shared))
        self.tools = msgspec.json.encode([self._tool(dice, number, shared) for number in range(TOOLS)])

    def words(self, dice: random.Random, tokens: int) -> str:
        """Return text of as many tokens, drawn by `dice`."""
        chunks = []
        while tokens > 0:
            size = min(tokens, _CHUNK_TOKENS)
            start = dice.randrange(_PAGE_TOKENS - size) * TOKEN_BYTES
            chunks.append(self._page[start : start + size * TOKEN_BYTES])
            tokens -= size
        return "".join(chunks)

    def _tool(self, dice: random.Random, number: int, tokens: int) -> dict[str, object]:
        parameters = {"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]}
        text = self.words(dice, tokens - _TOOL_TOKENS)
        return {
            "type": "function",
            "function": {"name": f"tool_{number}", "description": text, "parameters": parameters},
        }


class Conversation:
    """One session. `body` is to be asked for every turn once, in their order."""

    def __init__(self, texts: Texts, agent: int, session: int) -> None:
        self._texts = texts
        self._dice = random.Random(f"{texts.seed}/{agent}/{session}")  # noqa: S311 - made-up words are no secret
        self._said = bytearray(texts.system)
        self._last: Turn | None = None

    def body(self, turn: Turn, model: str, *, stream: bool, exact_output: bool) -> bytes:
        """Return the request of a turn: what was said before, the last answer, and what is new.

        The last answer is made up like all else, so that a replay does not depend on what a server says. `exact_output`
        asks for as many tokens as planned; else they are only the most that are wanted.
        """
        if self._last is None:
            added = turn.input_tokens - turn.reused_tokens - MESSAGE_TOKENS
            self._add(_message(role="user", content=self._texts.words(self._dice, added)))
        else:
            self._add(self._call(self._last.kept_tokens))
            added = turn.input_tokens - turn.reused_tokens - self._last.kept_tokens - 2 * MESSAGE_TOKENS
            content = self._texts.words(self._dice, added)
            self._add(_message(role="tool", tool_call_id=self._call_id(), content=content))
        self._last = turn
        options: dict[str, object] = {"max_tokens": turn.output_tokens}
        if exact_output:
            options["ignore_eos"] = True
        if stream:
            options |= {"stream": True, "stream_options": {"include_usage": True}}
        tail = msgspec.json.encode(options)[1:]
        head = b'{"model":%b,"tools":%b,"messages":[' % (msgspec.json.encode(model), self._texts.tools)
        return b"".join((head, self._said, b"],", tail))

    def _add(self, message: bytes) -> None:
        self._said += b","
        self._said += message

    def _call_id(self) -> str:
        """Return an id for the call that is being made: how far the conversation went is as good as any."""
        return f"call_{self._last.input_tokens if self._last else 0}"

    def _call(self, tokens: int) -> bytes:
        name = f"tool_{self._dice.randrange(TOOLS)}"
        arguments = msgspec.json.encode({"text": self._texts.words(self._dice, tokens)}).decode()
        function = {"name": name, "arguments": arguments}
        call = {"id": self._call_id(), "type": "function", "function": function}
        return _message(role="assistant", content=None, tool_calls=[call])


def _message(**fields: object) -> bytes:
    return msgspec.json.encode(fields)
