"""The command line of a replay, and what it shows: a line while it runs, a table or a JSON document at its end."""

import asyncio
import sys
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from typing import Annotated

import msgspec
import typer
from rich.console import Console
from rich.live import Live
from rich.text import Text

from gateway.dev.replay.errors import ReplayError
from gateway.dev.replay.report import Report
from gateway.dev.replay.sender import Options, send

FAILED, INTERRUPTED = 1, 130
SESSIONS_MAX = 1_000
SHOWN_PER_SECOND = 4

BaseUrl = Annotated[str, typer.Option(metavar="URL", help="OpenAI-compatible server to send to.")]
ApiKey = Annotated[
    str | None, typer.Option(envvar="PENSTOCK_API_KEY", show_envvar=True, metavar="KEY", help="Its key, if it has any.")
]
Model = Annotated[str, typer.Option(help="The model to ask for.")]
Sessions = Annotated[int, typer.Option(min=1, max=SESSIONS_MAX, help="Agents at work at the same time.")]
Duration = Annotated[float | None, typer.Option(min=0.1, metavar="SECONDS", help="How long. Default: until Ctrl-C.")]
Requests = Annotated[int | None, typer.Option(min=1, metavar="N", help="How many turns. Default: until Ctrl-C.")]
Scale = Annotated[float, typer.Option(min=0.001, max=1.0, help="Size of all texts: 1 is as in the trace.")]
Speed = Annotated[
    float, typer.Option(min=0.001, max=100_000, help="How much shorter the pauses are: 1 as in the trace.")
]
Seed = Annotated[int, typer.Option(help="The same seed sends the same.")]
Stream = Annotated[bool, typer.Option("--stream/--no-stream", help="Whether answers are streamed.")]
ExactOutput = Annotated[
    bool,
    typer.Option("--exact-output/--no-exact-output", help="Send ignore_eos, so that answers are as long as planned."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Answer with one JSON document on standard output.")]


def replay(
    *,
    base_url: BaseUrl = "http://127.0.0.1:8000/v1",
    api_key: ApiKey = None,
    model: Model = "penstock-sim",
    sessions: Sessions = 8,
    duration: Duration = None,
    requests: Requests = None,
    scale: Scale = 0.01,
    speed: Speed = 1.0,
    seed: Seed = 0,
    stream: Stream = True,
    exact_output: ExactOutput = True,
    as_json: AsJson = False,
) -> int:
    """Send traffic like that of coding agents to an OpenAI-compatible server, and report what came back.

    Long prompts that are mostly the last one again, short answers, sub-agents: the figures of a published trace. Ctrl-C
    ends it and shows what there is.
    """
    if api_key is not None and not (api_key.isascii() and api_key.isprintable() and " " not in api_key):
        raise typer.BadParameter("the key has characters that no key has")
    options = Options(base_url, model, api_key, sessions, requests, duration, scale, speed, seed, stream, exact_output)
    errors, report, code = Console(stderr=True), Report(), 0
    try:
        with _shown(errors, report):
            asyncio.run(send(options, report))
    except KeyboardInterrupt:
        code = INTERRUPTED
    except ReplayError as error:
        errors.print(Text(f"error: {error}", style="red"), soft_wrap=True)
        code = FAILED
    report.end()
    if code == FAILED and report.requests == 0:
        return code
    _answer(options, report, interrupted=code == INTERRUPTED, as_json=as_json)
    return code or (FAILED if report.requests and not report.answered else 0)


def _shown(console: Console, report: Report) -> AbstractContextManager[object]:
    """Return what keeps a line up to date on a terminal while it is entered; nothing elsewhere."""
    if not console.is_terminal:
        return nullcontext()
    return Live(
        console=console, get_renderable=report.line, refresh_per_second=SHOWN_PER_SECOND, transient=True, screen=False
    )


def _answer(options: Options, report: Report, *, interrupted: bool, as_json: bool) -> None:
    if as_json:
        asked = {name: value for name, value in asdict(options).items() if name != "api_key"}
        document = msgspec.json.encode({"asked": asked, "interrupted": interrupted, **report.document()})
        sys.stdout.buffer.write(msgspec.json.format(document, indent=2) + b"\n")
        sys.stdout.buffer.flush()
        return
    console = Console()
    console.print(report.table())
    for code, message in report.messages.items():
        console.print(Text(f"{code}: {message}"), soft_wrap=True)
