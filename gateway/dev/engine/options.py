"""What stays as it is for the life of one engine; how it answers is `gateway.dev.engine.behaviour`."""

from dataclasses import dataclass, field

from gateway.dev.engine.behaviour import Behaviour


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """What stays as it is for the life of the process.

    The first of `models` is the name on the metrics, as with vLLM's `--served-model-name`; the others are further names
    of the same engine. `kv_cache_tokens` bounds the prefix cache and is the 100 % of `vllm:kv_cache_usage_perc`.
    """

    models: tuple[str, ...] = ("penstock-sim",)
    max_num_seqs: int = 256
    max_model_len: int = 262_144
    kv_cache_tokens: int = 4_194_304
    prefix_caching: bool = True
    behaviour: Behaviour = field(default_factory=Behaviour)
