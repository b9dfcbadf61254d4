"""Runs the command line and turns whatever goes wrong into one line on standard error and an exit code.

0 is success, 1 a failure, 2 a call that cannot be understood, 130 an interrupt. No traceback and no secret is shown.
"""

from __future__ import annotations

import io
import os
import sys
import traceback
from typing import TYPE_CHECKING, Final

import typer
from typer.main import get_command

from gateway.cli import build_app
from gateway.errors import ConfigError, GatewayError, InvalidRequest, NotFound

if TYPE_CHECKING:
    from collections.abc import Sequence

FAILED, MISUSED, INTERRUPTED = 1, 2, 130

GROUPS: Final = {"organization": "org", "team": "team", "user": "user", "key": "key", "admin_key": "admin-key"}
"""Which commands list what was not found, by the `param` of the error."""


def run(arguments: Sequence[str] | None = None) -> int:
    """Run `penstock` with these arguments (default: those of the process) and return the exit code."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        # What was done must not end as a fault because the terminal cannot show a tenant's name.
        sys.stdout.reconfigure(errors="backslashreplace")
    command = get_command(build_app())
    try:
        returned = command.main(args=arguments, prog_name="penstock", standalone_mode=False)
        sys.stdout.flush()
    except typer.TyperException as error:
        return _misused(error)
    except (InvalidRequest, typer.BadParameter) as error:
        return _fail(str(error) + _place(error), MISUSED)
    except NotFound as error:
        return _fail(str(error) + _where_to_look(error) + _place(error), FAILED)
    except (GatewayError, ConfigError) as error:
        return _fail(str(error) + _place(error), FAILED)
    except (KeyboardInterrupt, typer.Abort):
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has had enough; Python must not complain about it when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except Exception as error:
        return _fail(_fault(error), FAILED)
    return returned if isinstance(returned, int) else 0


def _misused(error: typer.TyperException) -> int:
    """Say what is wrong with the call, and how to learn more. A call without a command is answered with the help."""
    if type(error).__name__ == "NoArgsIsHelpError":  # its message is the help, or empty where Rich has shown it already
        if help_text := error.format_message():
            typer.echo(help_text)
        return MISUSED
    context = getattr(error, "ctx", None)
    hint = f" (see: {context.command_path} --help)" if context is not None else ""
    message = " ".join(error.format_message().split()).rstrip(".").replace("Value error, ", "")
    return _fail(message + hint, error.exit_code)


def _where_to_look(error: NotFound) -> str:
    group = GROUPS.get(error.param or "")
    return f" (see: penstock {group} list)" if group else ""


def _place(error: Exception) -> str:
    """Return where it was that something was refused, as `gateway.cli.api` notes it."""
    notes = getattr(error, "__notes__", ())
    return f" [{', '.join(notes)}]" if notes else ""


def _fail(message: str, code: int) -> int:
    typer.echo(f"error: {message}", err=True)
    return code


def _fault(error: Exception) -> str:
    """Name the place of a fault of ours; its text may hold what must not be shown. A full disk is none."""
    if isinstance(error, OSError) and error.strerror:
        return f"the system refuses: {error.strerror}" + (f": {error.filename}" if error.filename else "")
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if "gateway" in frame.filename] or frames
    return (
        f"a fault in penstock itself: {type(error).__name__} at {ours[-1].filename}:{ours[-1].lineno}; please report it"
    )
