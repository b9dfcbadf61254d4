"""The engine's tokenizer: a token is four bytes of UTF-8, the last one what remains.

It is exact, documented and fast (counting is a division), the same for prompts, answers and `/tokenize`. As with the
byte-level tokenizers of real models a token may end inside a character; the text of such a token is empty and the
character appears with the token that completes it.
"""

import codecs
import struct
from collections.abc import Sequence

TOKEN_BYTES = 4
# What one call of an endpoint that shows tokens may ask for: 4 MiB of text.
SHOWN_TOKENS_MAX = 1_048_576
TOKEN_ID_MAX = 2 ** (8 * TOKEN_BYTES) - 1


def count_tokens(data: bytes) -> int:
    """Return how many tokens `data` is: its length in bytes divided by four, rounded up."""
    return -(-len(data) // TOKEN_BYTES)


def token_ids(data: bytes) -> list[int]:
    """Return the ids of `data`: each token's bytes read as a little-endian number, the last padded with zeros."""
    count = count_tokens(data)
    return list(struct.unpack(f"<{count}I", data.ljust(count * TOKEN_BYTES, b"\0")))


def bytes_of_ids(ids: Sequence[int]) -> bytes:
    """Return four bytes for each id, so that as many tokens are counted as ids were given.

    Ids are at most 2**32 - 1.
    """
    return struct.pack(f"<{len(ids)}I", *ids)


def token_texts(text: str) -> list[str]:
    """Return the text that each token adds; joined it is `text` again, and its length is the token count."""
    data = text.encode()
    if len(data) == len(text):
        return [text[at : at + TOKEN_BYTES] for at in range(0, len(text), TOKEN_BYTES)]
    decoder = codecs.getincrementaldecoder("utf-8")()
    return [decoder.decode(data[at : at + TOKEN_BYTES]) for at in range(0, len(data), TOKEN_BYTES)]
