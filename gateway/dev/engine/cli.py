"""The command line of the simulated engine: `penstock engine --port N [--model NAME]…`."""

import socket
from typing import Annotated

import typer
from rich.console import Console

from gateway.dev.engine.behaviour import OUTPUT_TOKENS_MAX, TOKENS_PER_SECOND_MAX, TTFT_MS_MAX, Behaviour
from gateway.dev.engine.options import EngineOptions
from gateway.dev.engine.server import bind, serve


def engine(
    *,
    port: Annotated[int, typer.Option(min=0, max=65_535, help="Port to serve on; 0 takes a free one.")] = 8000,
    host: Annotated[str, typer.Option(help="Address to serve on.")] = "127.0.0.1",
    model: Annotated[
        list[str] | None,
        typer.Option("--model", "--served-model-name", help="A name to serve; may be repeated."),
    ] = None,
    ttft_ms: Annotated[float, typer.Option(min=0, max=TTFT_MS_MAX, help="Time to the first token, in ms.")] = 20.0,
    tokens_per_second: Annotated[
        float, typer.Option(min=0, max=TOKENS_PER_SECOND_MAX, help="Rate of each stream; 0 is as fast as it goes.")
    ] = 200.0,
    output_tokens: Annotated[
        int, typer.Option(min=1, max=OUTPUT_TOKENS_MAX, help="Length of an answer that nothing else bounds.")
    ] = 64,
    reasoning_tokens: Annotated[
        int, typer.Option(min=0, max=OUTPUT_TOKENS_MAX, help="Tokens of reasoning_content before the answer.")
    ] = 0,
    max_num_seqs: Annotated[int, typer.Option(min=1, help="Requests that run at once; others wait their turn.")] = 256,
    max_model_len: Annotated[int, typer.Option(min=16, help="Context length, prompt and output.")] = 262_144,
    kv_cache_tokens: Annotated[int, typer.Option(min=16, help="Size of the KV and prefix cache.")] = 4_194_304,
    prefix_caching: Annotated[
        bool, typer.Option("--prefix-caching/--no-prefix-caching", help="Whether repeated prompts are cached.")
    ] = True,
    listen_fd: Annotated[
        int | None, typer.Option(min=3, hidden=True, help="A listening socket inherited from the parent.")
    ] = None,
) -> None:
    """Run a simulated vLLM server: its HTTP interface and its metrics, with made-up text and true token counts."""
    options = EngineOptions(
        models=tuple(model or EngineOptions().models),
        max_num_seqs=max_num_seqs,
        max_model_len=max_model_len,
        kv_cache_tokens=kv_cache_tokens,
        prefix_caching=prefix_caching,
        behaviour=Behaviour(
            ttft_ms=ttft_ms,
            tokens_per_second=tokens_per_second,
            output_tokens=output_tokens,
            reasoning_tokens=reasoning_tokens,
        ),
    )
    try:
        listener = bind(host, port) if listen_fd is None else socket.socket(fileno=listen_fd)
    except OSError as error:
        Console(stderr=True).print(
            f"error: cannot serve on {host}:{port}: {error.strerror}", style="red", soft_wrap=True
        )
        raise typer.Exit(1) from error
    address = listener.getsockname()
    shown_host = f"[{address[0]}]" if ":" in address[0] else address[0]
    said = f"Simulated engine on http://{shown_host}:{address[1]}/v1 serves {', '.join(options.models)}"
    Console().print(said, soft_wrap=True, highlight=False)
    serve(options, listener)
