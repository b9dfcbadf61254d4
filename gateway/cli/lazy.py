"""Commands that are imported when they run: `penstock key list` must not pay for what `penstock serve` needs.

Names and one-line helps stand in a table, so that `--help` and completion are complete without importing anything.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import Any, Final

import typer
from typer.core import TyperGroup
from typer.main import get_command


@dataclass(frozen=True, slots=True)
class LazyCommand:
    """A command or a group of commands. `target` is `module:name` of a function or of a Typer app.

    `beside`: names in the same module of commands that a function has under itself; it runs when none is called.
    """

    help: str
    target: str
    panel: str
    beside: tuple[str, ...] = ()

    def load(self, name: str) -> Any:
        """Import the target and return it as the command `name` that Typer runs."""
        module, _, attribute = self.target.partition(":")
        found = import_module(module)
        target = getattr(found, attribute)
        if not isinstance(target, typer.Typer):
            function, target = target, typer.Typer(add_completion=False)
            declare = target.callback(invoke_without_command=True) if self.beside else target.command()
            declare(function)
            for one in self.beside:
                target.command(one)(getattr(found, one))
        command = get_command(target)
        command.name = name
        for each in (command, *getattr(command, "commands", {}).values()):
            each.help = _unfolded(each.help or "")
            each.short_help = each.help.partition("\n")[0]
            # Rich's tables cut the names of options on a narrow terminal; a plain list gives a long one its own line.
            each.rich_markup_mode = None
        return command


def _unfolded(docstring: str) -> str:
    """Return a docstring with each paragraph on one line: the terminal's width, not ours, says where it is folded."""
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in docstring.split("\n\n"))


SHELLS: Final = ("bash", "zsh", "fish", "powershell", "pwsh")
_COMPLETION: Final = ("--show-completion", "--install-completion")

_RUN, _TENANTS, _PERSON = "Run a gateway", "Tenants, keys, limits, usage", "You at a gateway"

COMMANDS: Final = {
    "dev": LazyCommand("Try Penstock here: servers, engines and a gateway.", "gateway.cli.dev:dev", _RUN),
    "serve": LazyCommand("Serve one replica of the gateway.", "gateway.cli.serve:serve", _RUN),
    "engine": LazyCommand(
        "Run a simulated vLLM engine, or send traffic to one.", "gateway.cli.engine:engine", _RUN, beside=("replay",)
    ),
    "opencode": LazyCommand("What OpenCode needs for a gateway.", "gateway.cli.opencode:app", _RUN),
    "migrate": LazyCommand("Bring the database to this release.", "gateway.cli.migrate:migrate", _RUN),
    "bootstrap": LazyCommand("Make the first admin key.", "gateway.cli.bootstrap:bootstrap", _RUN),
    "check-config": LazyCommand(
        "Say what is wrong with a penstock.yaml.", "gateway.cli.check_config:check_config", _RUN
    ),
    "login": LazyCommand("Log in to a gateway, or get a key of your own.", "gateway.cli.login:login", _PERSON),
    "logout": LazyCommand("Log out of a gateway.", "gateway.cli.login:logout", _PERSON),
    "whoami": LazyCommand("Who you are at a gateway.", "gateway.cli.login:whoami", _PERSON),
    "org": LazyCommand("Organizations.", "gateway.cli.org:app", _TENANTS),
    "team": LazyCommand("Teams of an organization.", "gateway.cli.team:app", _TENANTS),
    "user": LazyCommand("Users of an organization, members of teams.", "gateway.cli.user:app", _TENANTS),
    "key": LazyCommand("API keys.", "gateway.cli.key:app", _TENANTS),
    "limit": LazyCommand("Requests and tokens per minute.", "gateway.cli.limit:app", _TENANTS),
    "price": LazyCommand("What tokens cost, and from when on.", "gateway.cli.price:app", _TENANTS),
    "apply": LazyCommand("Tenants and prices as a file declares them.", "gateway.cli.apply:apply", _TENANTS),
    "pool": LazyCommand("Pools of engines, to be read.", "gateway.cli.pool:app", _TENANTS),
    "usage": LazyCommand("What was used, and what it cost.", "gateway.cli.usage:usage", _TENANTS),
    "statement": LazyCommand("What a month came to, for ever.", "gateway.cli.statement:app", _TENANTS),
    "ledger": LazyCommand("Correct, check and export the ledger.", "gateway.cli.ledger:app", _TENANTS),
    "audit": LazyCommand("Who changed what.", "gateway.cli.audit:app", _TENANTS),
    "admin-key": LazyCommand("Keys of the control-plane API.", "gateway.cli.admin_key:app", _TENANTS),
    "webhook": LazyCommand("Tell others of budgets and keys.", "gateway.cli.webhook:app", _TENANTS),
}


class LazyGroup(TyperGroup):
    """A group whose commands are placeholders until one of them is called."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Take the name of a shell after the options of completion, which by themselves find out which one calls."""
        if len(args) == 2 and args[0] in _COMPLETION and args[1] in SHELLS:
            _complete_in(args[1], install=args[0] == _COMPLETION[1])
            ctx.exit()
        parsed: list[str] = super().parse_args(ctx, args)
        return parsed

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Return what is to run, imported."""
        name, placeholder, rest = super().resolve_command(ctx, args)
        if name is None or placeholder is None:  # completion of a word that is no command
            return name, placeholder, rest
        return name, COMMANDS[name].load(name), rest


def _complete_in(shell: str, *, install: bool) -> None:
    """Show the script that completes the command in a shell, or put it where that shell reads it."""
    from typer import completion  # noqa: PLC0415 - of use here alone

    named = {"shell": shell, "prog_name": "penstock", "complete_var": "_PENSTOCK_COMPLETE"}
    if install:
        _, path = completion.install(**named)  # type: ignore[attr-defined] # imported there, and not listed
        typer.echo(f"completion for {shell} is in {path}, and counts in the next shell that is opened")
        return
    typer.echo(completion.get_completion_script(**named))  # type: ignore[attr-defined] # as above
