"""`penstock dev`, from the first line on the screen to the last process stopped.

One process owns everything: it starts the parts (`gateway.dev.stack`), tells people and scripts how to use them, and
then only watches, until a signal or until one of them ends. Its own death by kill -9 ends them as well.
"""

from __future__ import annotations

import os
import select
import time
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, NoReturn

from gateway.dev.data_dir import locked_data_dir
from gateway.dev.demo_config import CONFIG_FILE
from gateway.dev.errors import DevServerError
from gateway.dev.files import write_private_json
from gateway.dev.options import INFO_FILE
from gateway.dev.ports import await_previous, choose_ports
from gateway.dev.screen import Screen
from gateway.dev.stack import Stack, start_stack
from gateway.dev.stop_signals import StopRequested, stop_signals
from gateway.errors import ConfigError, GatewayError
from gateway.settings import load_settings

if TYPE_CHECKING:
    from rich.console import Console

    from gateway.dev.options import DevOptions

STOPPED, FAILED, INTERRUPTED = 0, 1, 130


def run_dev(options: DevOptions, console: Console, errors: Console) -> int:
    """Run the development environment until it is told to stop; return the exit code.

    0: stopped by Ctrl-C, SIGTERM or SIGHUP once it was ready; 130: stopped before; 1: it could not start, or a part of
    it ended, and `errors` says why.
    """
    screen = Screen(console, errors)
    # Asked now: a terminal that was closed meanwhile would no longer say that it is one.
    terminal = next((number for number in range(3) if os.isatty(number)), None)
    with stop_signals() as signals, ExitStack() as stack:
        ready = False
        try:
            running = _start(stack, options, screen)
            ready = True
            _watch(running, screen, terminal)
        except StopRequested:
            screen.say("\nStopping …")
            return STOPPED if ready else INTERRUPTED
        except (DevServerError, ConfigError, GatewayError, OSError) as error:
            screen.fail(error)
            return FAILED
        finally:
            signals.disarm()  # what follows takes everything down and must not be interrupted


def _start(stack: ExitStack, options: DevOptions, screen: Screen) -> Stack:
    started_s = time.monotonic()
    data_dir = stack.enter_context(locked_data_dir(options.data_dir))
    options = replace(options, data_dir=data_dir.path)
    info_file = data_dir.path / INFO_FILE
    info_file.unlink(missing_ok=True)
    settings = load_settings(config=data_dir.path / CONFIG_FILE, auth=options.auth)
    if data_dir.left_behind:
        with screen.step("Waiting for what a killed start left behind"):
            await_previous(data_dir.path)
    ports = choose_ports(options)
    stack.callback(screen.say, "Stopped.")
    running = start_stack(stack, options, ports, settings, screen)
    stack.callback(info_file.unlink, missing_ok=True)
    write_private_json(info_file, running.info.as_dict())
    screen.ready(running, elapsed_s=time.monotonic() - started_s, logs=data_dir.path / "logs")
    return running


def _watch(running: Stack, screen: Screen, terminal: int | None) -> NoReturn:
    """Raise DevServerError when a server or the gateway ends, StopRequested at a signal or when the terminal is closed.

    A closed terminal sends SIGHUP only to the leader of its session, which need not pass it on (`make` does not).
    """
    poll = select.poll()
    engines = list(running.engines)
    for child in (*running.children, *engines):
        poll.register(child, select.POLLIN)
    if terminal is not None:
        poll.register(terminal, 0)  # POLLHUP needs no asking
    while True:
        happened = dict(poll.poll())
        for child in running.children:
            if child.poll() is not None:
                raise child.failure(f"ended with exit code {child.exit_code}")
        for engine in tuple(engines):
            descriptor = engine.fileno()
            if engine.poll() is not None:
                engines.remove(engine)
                poll.unregister(descriptor)
                said = f"{engine.spec.name} ended with exit code {engine.exit_code}; the gateway goes on without it"
                screen.say(f"{said}. Its log: {engine.spec.log}", style="yellow")
        if terminal in happened:
            raise StopRequested("the terminal was closed")
