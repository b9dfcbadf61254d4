"""The command line of a replay, and what it shows: a line while it runs, a table or a JSON document at its end."""

import asyncio
import os
import signal
import sys
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from typing import Annotated, NoReturn

import msgspec
import typer
from rich.console import Console
from rich.live import Live
from rich.text import Text

from gateway.dev.replay.client import Target
from gateway.dev.replay.errors import ReplayError
from gateway.dev.replay.report import Report
from gateway.dev.replay.sender import Options, send

FAILED = 1
SIGNALLED = 128
"""Exit code after a signal, without the signal's number: 130 after Ctrl-C, 143 after SIGTERM."""
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
Scale = Annotated[float, typer.Option(min=0.001, max=1.0, help="Size of prompts: 1 is as in the trace.")]
OutputScale = Annotated[float, typer.Option(min=0.001, max=1.0, help="Length of answers: 1 is as in the trace.")]
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
    output_scale: OutputScale = 1.0,
    speed: Speed = 1.0,
    seed: Seed = 0,
    stream: Stream = True,
    exact_output: ExactOutput = True,
    as_json: AsJson = False,
) -> int:
    """Send traffic like that of coding agents to an OpenAI-compatible server, and report what came back.

    Long prompts that are mostly the last one again, short answers, sub-agents: the figures of a published trace. Ctrl-C
    or SIGTERM ends it and shows what there is. The exit code is 0 when anything was answered, 1 when nothing was.
    """
    if api_key is not None and not (api_key.isascii() and api_key.isprintable() and " " not in api_key):
        raise typer.BadParameter("the key has characters that no key has")
    options = Options(
        base_url,
        model,
        api_key,
        sessions=sessions,
        requests=requests,
        duration_s=duration,
        scale=scale,
        output_scale=output_scale,
        speed=speed,
        seed=seed,
        stream=stream,
        exact_output=exact_output,
    )
    errors, report, code = Console(stderr=True), Report(), 0
    try:
        target = Target.of(base_url)
        if not as_json:
            errors.print(Text(_announced(options)), soft_wrap=True)
        with _shown(errors, report):
            code = asyncio.run(_until_a_signal(options, target, report, errors))
    except ReplayError as error:
        errors.print(Text(f"error: {error}", style="red"), soft_wrap=True)
        code = FAILED
    report.end()
    if code == FAILED and report.requests == 0:
        return code
    _answer(options, report, interrupted=code > SIGNALLED, as_json=as_json)
    if code == 0 and report.answered == 0:
        errors.print(Text("error: nothing was answered", style="red"))
        return FAILED
    return code


def _announced(options: Options) -> str:
    """Return what is about to be done, and how it ends."""
    sessions = "1 session" if options.sessions == 1 else f"{options.sessions:,} sessions"
    bounds = [f"after {options.requests:,} requests"] if options.requests is not None else []
    bounds += [f"after {options.duration_s:g} s"] if options.duration_s is not None else []
    ends = " or ".join([*bounds, "with Ctrl-C"])
    return f"Sending to {options.base_url}, model {options.model}: {sessions}; ends {ends}"


async def _until_a_signal(options: Options, target: Target, report: Report, console: Console) -> int:
    """Send until the end or the first signal; return the exit code that is due to it. A second one ends the process."""
    loop, sending = asyncio.get_running_loop(), asyncio.create_task(send(options, target, report))
    heard: list[int] = []

    def end_at_once(number: int, _frame: object) -> NoReturn:
        console.show_cursor()
        os._exit(SIGNALLED + number)

    def end(number: int) -> None:
        heard.append(number)
        sending.cancel()
        for each in stopping:
            loop.remove_signal_handler(each)
            signal.signal(each, end_at_once)

    # A process that a script started in the background ignores Ctrl-C, and goes on doing so.
    stopping = [each for each in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(each) is not signal.SIG_IGN]
    for each in stopping:
        loop.add_signal_handler(each, end, each)
    (failure,) = await asyncio.gather(sending, return_exceptions=True)
    if heard:
        return SIGNALLED + heard[0]
    if failure is not None:
        raise failure
    return 0


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
