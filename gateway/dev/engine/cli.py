"""The command line of the simulated engine: `penstock engine --port N [--engines N] [--model NAME]…`."""

import ipaddress
import socket
from typing import Annotated, Any

import typer
from rich.console import Console

from gateway.dev.engine.behaviour import (
    LOAD_SLOWDOWN_MAX,
    OUTPUT_TOKENS_MAX,
    TOKENS_PER_SECOND_MAX,
    TTFT_MS_MAX,
    Behaviour,
)
from gateway.dev.engine.options import EngineOptions, Kind, fault_in_names
from gateway.dev.engine.records import RECORDS_KEPT
from gateway.dev.engine.server import PORT_MAX, allow_files, bind, serve

ENGINES_MAX = 100
# Of all engines of the process together, and of one.
BODIES_KEPT_BYTES_MAX = 268_435_456
ENGINE_BODIES_KEPT_BYTES_MAX = 67_108_864
RECORDS_KEPT_MAX = 65_536


def _amount(maximum: int, text: str) -> Any:
    """Return an option for a number from 0 to `maximum`; what is none is told both bounds.

    With `typer.Option(min=…, max=…)` NaN is told to be less than the maximum.
    """

    def check(value: float) -> float:
        if not 0 <= value <= maximum:
            raise typer.BadParameter(f"must be a number from 0 to {maximum}")
        return value

    return typer.Option(callback=check, help=f"{text} 0 to {maximum}.")


Port = Annotated[int, typer.Option(min=0, max=PORT_MAX, help="Port of the first engine; 0 takes free ones.")]
Engines = Annotated[int, typer.Option(min=1, max=ENGINES_MAX, help="Engines to run, on as many consecutive ports.")]
Host = Annotated[str, typer.Option(help="Address to serve on.")]
Models = Annotated[
    list[str] | None, typer.Option("--model", "--served-model-name", help="A name to serve; may be repeated.")
]
Loras = Annotated[list[str] | None, typer.Option("--lora", help="A LoRA to serve by this name; may be repeated.")]
EngineKind = Annotated[Kind, typer.Option(help="The server to be like, in metrics and the endpoints around inference.")]
Ttft = Annotated[float, _amount(TTFT_MS_MAX, "Time to the first token, in ms.")]
Rate = Annotated[float, _amount(TOKENS_PER_SECOND_MAX, "Rate of each stream; 0 is as fast as it goes.")]
PrefillRate = Annotated[float, _amount(TOKENS_PER_SECOND_MAX, "Rate of uncached prompt tokens; 0 takes no time.")]
Slowdown = Annotated[float, _amount(LOAD_SLOWDOWN_MAX, "How much longer a step takes per other running request.")]
OutputTokens = Annotated[
    int, typer.Option(min=1, max=OUTPUT_TOKENS_MAX, help="Length of an answer that nothing else bounds.")
]
ReasoningTokens = Annotated[
    int, typer.Option(min=0, max=OUTPUT_TOKENS_MAX, help="Tokens of reasoning_content before the answer.")
]
MaxNumSeqs = Annotated[int, typer.Option(min=1, help="Requests that run at once; others wait their turn.")]
MaxQueued = Annotated[int, typer.Option(min=0, help="Requests that may wait; more are refused with 503.")]
MaxModelLen = Annotated[int, typer.Option(min=16, help="Context length, prompt and output.")]
KvCacheTokens = Annotated[int, typer.Option(min=16, help="Size of the KV cache, which is also the prefix cache.")]
PrefixCaching = Annotated[
    bool, typer.Option("--prefix-caching/--no-prefix-caching", help="Whether repeated prompts are cached.")
]
RecordsKept = Annotated[
    int, typer.Option(min=1, max=RECORDS_KEPT_MAX, help="How many of the last requests /sim/state tells.")
]
ListenFds = Annotated[
    list[int] | None,
    typer.Option("--listen-fd", min=3, hidden=True, help="A listening socket inherited from the parent."),
]


def engine(
    context: typer.Context,
    *,
    port: Port = 8000,
    engines: Engines = 1,
    host: Host = "127.0.0.1",
    model: Models = None,
    lora: Loras = None,
    kind: EngineKind = "vllm",
    ttft_ms: Ttft = 20.0,
    tokens_per_second: Rate = 200.0,
    prefill_tokens_per_second: PrefillRate = 0.0,
    load_slowdown: Slowdown = 0.0,
    output_tokens: OutputTokens = 64,
    reasoning_tokens: ReasoningTokens = 0,
    max_num_seqs: MaxNumSeqs = 256,
    max_queued_requests: MaxQueued = 10_000,
    max_model_len: MaxModelLen = 262_144,
    kv_cache_tokens: KvCacheTokens = 4_194_304,
    prefix_caching: PrefixCaching = True,
    records_kept: RecordsKept = RECORDS_KEPT,
    listen_fd: ListenFds = None,
) -> None:
    """Run simulated vLLM servers: their HTTP interface and their metrics, with made-up text and true token counts."""
    if context.invoked_subcommand is not None:
        return
    _check_names(model or [], lora or [])
    count = len(listen_fd) if listen_fd else engines
    options = EngineOptions(
        models=tuple(model or EngineOptions().models),
        loras=tuple(lora or ()),
        kind=kind,
        max_num_seqs=max_num_seqs,
        max_queued_requests=max_queued_requests,
        max_model_len=max_model_len,
        kv_cache_tokens=kv_cache_tokens,
        prefix_caching=prefix_caching,
        records_kept=records_kept,
        bodies_kept_bytes=min(ENGINE_BODIES_KEPT_BYTES_MAX, BODIES_KEPT_BYTES_MAX // count),
        behaviour=Behaviour(
            ttft_ms=ttft_ms,
            tokens_per_second=tokens_per_second,
            prefill_tokens_per_second=prefill_tokens_per_second,
            load_slowdown=load_slowdown,
            output_tokens=output_tokens,
            reasoning_tokens=reasoning_tokens,
        ),
    )
    try:
        allow_files(count)
        listeners = [socket.socket(fileno=fd) for fd in listen_fd] if listen_fd else bind(host, port, count)
    except OSError as error:
        Console(stderr=True).print(f"error: {error}", style="red", soft_wrap=True)
        raise typer.Exit(1) from error
    for listener in listeners:
        _say(listener, options)
    _warn_of_strangers(listeners[0])
    serve(options, listeners)


def _check_names(models: list[str], loras: list[str]) -> None:
    """Refuse names that cannot be served. Raises typer.BadParameter, which names the option."""
    for option, names, taken in (("--model", models, []), ("--lora", loras, models or [*EngineOptions().models])):
        if fault := fault_in_names(names, taken):
            raise typer.BadParameter(fault, param_hint=option)


def _warn_of_strangers(listener: socket.socket) -> None:
    """Say what others may do, where others than this machine can connect."""
    host = listener.getsockname()[0]
    if not ipaddress.ip_address(host).is_loopback:
        Console(stderr=True).print(
            f"warning: whoever reaches {host} can read requests with their keys in /sim/state, and change the engine"
            " by /sim/control",
            style="yellow",
            soft_wrap=True,
        )


def _say(listener: socket.socket, options: EngineOptions) -> None:
    """Print where an engine serves, and what."""
    host, port = listener.getsockname()[:2]
    shown_host = f"[{host}]" if ":" in host else host
    names = ", ".join([*options.models, *options.loras])
    Console().print(
        f"Simulated engine on http://{shown_host}:{port}/v1 serves {names}", soft_wrap=True, highlight=False
    )
