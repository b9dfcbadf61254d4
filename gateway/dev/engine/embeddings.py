"""POST /v1/embeddings: a unit vector for each text, the same for the same text and near to nothing else."""

import asyncio
import base64
import hashlib
import math
import struct
from typing import Any

import msgspec

from gateway.dev.engine.core import Engine, Job
from gateway.dev.engine.errors import bad_request, context_too_long
from gateway.dev.engine.faults import Sender, admitted
from gateway.dev.engine.generating import Incoming
from gateway.dev.engine.http import Send
from gateway.dev.engine.requests import EmbeddingRequest, decode, prompts_of
from gateway.dev.engine.tokenizer import TOKEN_BYTES, bytes_of_ids, count_tokens
from gateway.dev.engine.wire import told

DIMENSIONS = 64
# As OpenAI has it.
INPUTS_MAX = 2_048
# Of all vectors of an answer together: some 100 MB.
NUMBERS_MAX = 2_097_152


async def embeddings(engine: Engine, incoming: Incoming, send: Send) -> None:
    """Answer an embedding request. Raises EngineError for what it cannot embed."""
    request = decode(incoming.body, EmbeddingRequest)
    behaviour = await admitted(engine, request.model, request.sim, incoming.header_overrides)
    if request.encoding_format not in ("float", "base64"):
        raise bad_request("encoding_format must be float or base64", param="encoding_format")
    given = prompts_of(request.input)
    if len(given) > INPUTS_MAX:
        raise bad_request(f"at most {INPUTS_MAX} inputs, not {len(given)}", param="input")
    if len(given) * (request.dimensions or DIMENSIONS) > NUMBERS_MAX:
        raise bad_request(f"inputs times dimensions are at most {NUMBERS_MAX}", param="dimensions")
    texts = [item.encode() if isinstance(item, str) else bytes_of_ids(item) for item in given]
    if max(count_tokens(text) for text in texts) > engine.options.context_tokens:
        limit = engine.options.context_tokens
        raise context_too_long(f"This model's maximum context length is {limit} tokens.", param="input")
    prompt = b"".join(text.ljust(count_tokens(text) * TOKEN_BYTES, b"\0") for text in texts)
    job = Job(prompt, (), behaviour, incoming.record, streamed=False, model=request.model)
    await engine.embed(job)
    body: dict[str, Any] = {
        "id": f"embd-{incoming.request_id or 'sim'}",
        "object": "list",
        "created": engine.started_at,
        "model": request.model,
        "data": [
            {"index": index, "object": "embedding", "embedding": vector}
            for index, vector in enumerate(await _vectors(texts, request))
        ],
    }
    if not behaviour.no_usage:
        tokens = job.prompt_tokens
        body["usage"] = told(job, {"prompt_tokens": tokens, "total_tokens": tokens, "completion_tokens": 0})
    incoming.record.status = 200
    await Sender(send, behaviour).whole(msgspec.json.encode(body))
    engine.counters.finished_reasons["stop"] += 1


async def _vectors(texts: list[bytes], request: EmbeddingRequest) -> list[list[float] | str]:
    """Return a vector for each text as it is shown; others have their turn between any two."""
    vectors = []
    for text in texts:
        vectors.append(_shown(_vector(text, request.dimensions), request))
        await asyncio.sleep(0)
    return vectors


def _vector(text: bytes, dimensions: int | None) -> list[float]:
    """Return a vector of length 1 made from the digest of `text`."""
    count = dimensions or DIMENSIONS
    words = struct.unpack(f"<{count}i", hashlib.shake_128(text).digest(4 * count))
    length = math.sqrt(sum(word * word for word in words)) or 1.0
    return [word / length for word in words]


def _shown(vector: list[float], request: EmbeddingRequest) -> list[float] | str:
    if request.encoding_format == "float":
        return vector
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()
