"""What stays as it is for the life of one engine; how it answers is `gateway.dev.engine.behaviour`."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from gateway.dev.engine.behaviour import Behaviour
from gateway.dev.engine.records import RECORDS_KEPT

NAME_CHARS_MAX = 256

Kind = Literal["vllm", "sglang", "llamacpp", "tgi"]


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """What stays as it is for the life of the process.

    The first of `models` is the name on the metrics, as with vLLM's `--served-model-name`; the others are further names
    of the same engine. `loras` are adapters on that model, each served by its name. `max_num_seqs` requests run at
    once, `max_queued_requests` wait. `kv_cache_tokens` is the memory of running requests and prefix cache, the 100 % of
    `vllm:kv_cache_usage_perc`. `kind` is the server whose metrics and other endpoints are shown. `records_kept`
    requests are kept for `/sim/state`, and of their bodies `bodies_kept_bytes`.
    """

    models: tuple[str, ...] = ("penstock-sim",)
    loras: tuple[str, ...] = ()
    kind: Kind = "vllm"
    max_num_seqs: int = 256
    max_queued_requests: int = 10_000
    max_model_len: int = 262_144
    kv_cache_tokens: int = 4_194_304
    prefix_caching: bool = True
    records_kept: int = RECORDS_KEPT
    bodies_kept_bytes: int = 67_108_864
    behaviour: Behaviour = field(default_factory=Behaviour)

    @property
    def context_tokens(self) -> int:
        """The longest context: `max_model_len`, or the whole memory where that is smaller."""
        return min(self.max_model_len, self.kv_cache_tokens)


def fault_in_names(names: Sequence[str], taken: Sequence[str] = ()) -> str | None:
    """Return what is wrong with the names of models or adapters, `None` when nothing is.

    They are model ids, labels on metrics and lines on a screen. `taken` are those that others have already.
    """
    known = set(taken)
    for name in names:
        if not name.strip():
            return "the name is empty"
        if not name.isprintable():
            return f"the name {name!r} has a character that cannot be printed"
        if len(name) > NAME_CHARS_MAX:
            return f"the name {name[:32]!r}... has more than {NAME_CHARS_MAX} characters"
        if name in known:
            return f"the name {name!r} is given twice"
        known.add(name)
    return None
