"""`make demo-opencode`: the real OpenCode works through the gateway, then the ledger is held against the engines.

Uses a `penstock dev` that runs in the data directory, or starts one of its own and stops it again. The exit code says
whether every token that the engines counted is in the ledger.
"""

from __future__ import annotations

import argparse
import asyncio
import http.client
import signal
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from rich.console import Console
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from gateway.dev.files import read_json
from gateway.units import PICO_USD_PER_USD
from tests.support.engine import sampled
from tests.support.npm import NpmMissing, installed
from tests.support.opencode import Event, configuration, run_opencode
from tests.support.postgres import connected
from tests.support.process_ids import running
from tests.support.servers import reachable_directory
from tests.support.source import REPOSITORY
from tests.support.waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

MODEL = "qwen-coder"
TASK = "Use the bash tool to run: echo hello"
DEV = (sys.executable, "-m", "gateway", "dev", "--port=0", "--metrics-port=0", "--engines=1")
START_S_MAX = 120.0
STOP_S_MAX = 30.0
ASK_S_MAX = 10.0
SETTLED_S_MAX = 15.0
TEXT_CHARS_MAX = 160

ENGINE_COUNTERS = {
    "requests": "vllm:request_success_total",
    "prompt_tokens": "vllm:prompt_tokens_total",
    "cached_tokens": "vllm:prefix_cache_hits_total",
    "completion_tokens": "vllm:generation_tokens_total",
}
LEDGER = """
SELECT count(*) AS requests, coalesce(sum(prompt_tokens), 0) AS prompt_tokens,
       coalesce(sum(cached_tokens), 0) AS cached_tokens, coalesce(sum(completion_tokens), 0) AS completion_tokens,
       coalesce(sum(cost_pico_usd), 0) AS cost_pico_usd,
       count(*) FILTER (WHERE status <> 'ok' OR coverage <> 'exact') AS inexact
  FROM usage_event
"""


@dataclass(frozen=True)
class Figures:
    """Sums of a ledger or of engines; `cost_pico_usd` and `inexact` (events that are not ok and exact) of a ledger."""

    requests: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    cost_pico_usd: int = 0
    inexact: int = 0

    def since(self, before: Figures) -> Figures:
        """Return what was added after `before`."""
        return Figures(**{name: value - getattr(before, name) for name, value in vars(self).items()})

    def agrees_with(self, engines: Figures) -> bool:
        """Whether this ledger says what the engines counted, and all of it exactly."""
        counted = all(getattr(self, name) == getattr(engines, name) for name in ENGINE_COUNTERS)
        return counted and self.inexact == 0 and self.requests > 0


def main(arguments: list[str]) -> int:
    """Run the demonstration; return the exit code: 0 when ledger and engines agree."""
    parser = argparse.ArgumentParser(prog="make demo-opencode", description=__doc__)
    parser.add_argument("--data-dir", type=Path, default=Path(".penstock"), help="of a running `penstock dev`")
    parser.add_argument("--task", default=TASK, help="what OpenCode is told")
    options = parser.parse_args(arguments)
    console = Console(highlight=False)
    try:
        with console.status("Installing OpenCode (the first time this takes a moment) …"):
            installed()
        with development(console, options.data_dir) as info:
            return demonstrate(console, info, options.task)
    except NpmMissing as error:
        console.print(Text(str(error), style="red"))
    except KeyboardInterrupt:
        console.print("stopped")
    return 1


@contextmanager
def development(console: Console, data_dir: Path) -> Iterator[dict[str, Any]]:
    """Yield what a running `penstock dev` tells scripts, that of `data_dir` or one of its own."""
    info = read_json(data_dir / "dev.json")
    if info and running(info["pid"]):
        console.print(f"Using the Penstock that runs in {data_dir}: {info['base_url']}")
        yield info
        return
    with reachable_directory() as folder, (folder / "dev.log").open("wb") as log:
        process = subprocess.Popen(
            [*DEV, f"--data-dir={folder}"],
            cwd=REPOSITORY,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C is for us, who stop it then
        )
        try:
            with console.status("Starting PostgreSQL, Redis, a simulated engine and a gateway …"):
                wait_for(lambda: read_json(folder / "dev.json") or process.poll() is not None, "it runs", START_S_MAX)
            info = read_json(folder / "dev.json")
            if not info:
                raise SystemExit((folder / "dev.log").read_text())
            console.print(f"Started a Penstock of its own: {info['base_url']}")
            yield info
        finally:
            process.send_signal(signal.SIGTERM)
            with console.status("Stopping it …"):
                _ended(process)


def _ended(process: subprocess.Popen[bytes]) -> None:
    try:
        process.wait(STOP_S_MAX)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        raise


def demonstrate(console: Console, info: dict[str, Any], task: str) -> int:
    """Let OpenCode work, show what it does, compare, and return the exit code."""
    engines_before, ledger_before = engine_figures(info["engines"]), ledger_figures(info["postgres_dsn"])
    console.print(Rule(f'opencode run "{task}" -m penstock/{MODEL}', align="left"))
    with reachable_directory() as folder:
        config = configuration(info["base_url"], info["api_key"], (MODEL,))
        outcome = run_opencode(
            folder, task, "-m", f"penstock/{MODEL}", config=config, on_event=lambda event: show(console, event)
        )
    if outcome.code != 0:
        console.print(Text(f"OpenCode ended with exit code {outcome.code}\n{outcome.stderr[-2000:]}", style="red"))
        return 1
    engines = engine_figures(info["engines"]).since(engines_before)

    def closed() -> Figures | None:
        found = ledger_figures(info["postgres_dsn"]).since(ledger_before)
        return found if found.requests >= engines.requests else None

    ledger = wait_for(closed, "all events are closed", SETTLED_S_MAX)
    assert ledger is not None
    console.print(compared(engines, ledger))
    agrees = ledger.agrees_with(engines)
    console.print(
        Text("Equal: every token that the engines counted is in the ledger, exactly once.", style="bold green")
        if agrees
        else Text("NOT equal. Did something else use these engines meanwhile?", style="bold red")
    )
    return 0 if agrees else 1


def show(console: Console, event: Event) -> None:
    """Show one event of OpenCode on a line or two."""
    part = event.get("part", {})
    if event["type"] == "tool_use":
        state = part["state"]
        console.print(Text(f"  {part['tool']}  {state['input'].get('command', state['input'])}", style="cyan"))
        console.print(Text(f"  {state.get('output', state['status']).strip()}", style="dim"))
    elif event["type"] == "text":
        said = " ".join(part["text"].split())
        console.print(Text(f"  “{said[:TEXT_CHARS_MAX]}{' …' if len(said) > TEXT_CHARS_MAX else ''}”"))
    elif event["type"] == "step_finish":
        tokens = part["tokens"]
        prompt = tokens["input"] + tokens["cache"]["read"]
        console.print(Text(f"  step: {prompt} prompt tokens, {tokens['output']} generated", style="dim"))
    elif event["type"] == "error":
        console.print(Text(f"  {event['error']['data']['message']}", style="red"))


def compared(engines: Figures, ledger: Figures) -> Table:
    """Return the engines' counters beside the ledger's sums."""
    table = Table(title="What the engines counted, and what the ledger says", title_justify="left")
    table.add_column("")
    for heading in ("engines", "ledger", "equal"):
        table.add_column(heading, justify="right")
    for name in ENGINE_COUNTERS:
        counted, booked = getattr(engines, name), getattr(ledger, name)
        mark = Text("yes", style="green") if counted == booked else Text("NO", style="red")
        table.add_row(name.replace("_", " "), str(counted), str(booked), mark)
    table.add_section()
    table.add_row("cost in USD", "", f"{Decimal(ledger.cost_pico_usd) / PICO_USD_PER_USD:f}")
    table.add_row("events not ok and exact", "", str(ledger.inexact))
    return table


def engine_figures(urls: list[str]) -> Figures:
    """Return the sums of the engines' own counters."""
    pages = [sampled(get(f"{url}/metrics")) for url in urls]
    return Figures(**{name: int(sum(page[series] for page in pages)) for name, series in ENGINE_COUNTERS.items()})


def ledger_figures(dsn: str) -> Figures:
    """Return the sums of all closed events."""

    async def fetch() -> Figures:
        async with connected(dsn) as connection:
            row = await connection.fetchrow(LEDGER)
        assert row is not None
        return Figures(**{name: int(value) for name, value in row.items()})

    return asyncio.run(fetch())


def get(url: str) -> str:
    """Return the body of an answer."""
    parts = urlsplit(url)
    assert parts.hostname is not None
    connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=ASK_S_MAX)
    try:
        connection.request("GET", parts.path)
        return connection.getresponse().read().decode()
    finally:
        connection.close()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
