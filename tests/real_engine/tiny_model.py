"""A language model with random weights, small enough to answer at once on a processor: its measures and tokenizer.

The tokenizer (byte-level BPE, as GPT-2's and many since) is trained on text files, so that its tokens are about as long
as a real one's. What the model says is made of readable tokens: the rows of all others in its output matrix are zero,
and lose against hundreds of random ones. So it never ends by itself, either.

`tiny_gguf.py` and `tiny_transformers.py` write it in an engine's format, each in the environment of that engine:

    python -m tests.real_engine.tiny_gguf FOLDER TEXT...
"""

from __future__ import annotations

import re
from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

VOCABULARY = 2048
CONTEXT = 32_768
WIDTH, LAYERS, HEADS, INNER = 64, 1, 4, 128
END, START, STOP = SPECIALS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
TEMPLATE = (
    "{% if tools %}<|im_start|>tools\n{{ tools | tojson }}<|im_end|>\n{% endif %}"
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
READABLE = re.compile(r"Ġ?[A-Za-z,.]+")
"""`Ġ` is how byte-level BPE writes a space."""


def trained_tokenizer(texts: list[str]) -> Any:
    """Return a `tokenizers.Tokenizer` of VOCABULARY tokens, the special ones first."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=VOCABULARY, special_tokens=list(SPECIALS), initial_alphabet=alphabet)
    tokenizer.train(texts, trainer)
    return tokenizer


def tokens_of(tokenizer: Any) -> list[str]:
    """Return the tokens in the order of their ids."""
    by_token: dict[str, int] = tokenizer.get_vocab()
    return sorted(by_token, key=lambda token: by_token[token])


def readable(token: str) -> bool:
    """Whether a token may be generated."""
    return READABLE.fullmatch(token) is not None
