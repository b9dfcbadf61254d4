"""OpenCode as a developer has it who was told one command: logged in to a gateway, and configured by it alone."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tests.support.command import Outcome, Penstock
from tests.support.opencode import OpenCodeRun, opencode_environment, program, run_opencode

if TYPE_CHECKING:
    from pathlib import Path

COMMAND_S_MAX = 60.0
ANY_TOOL: dict[str, Any] = {"permission": {"bash": "allow", "edit": "allow"}}
"""What a person's own opencode.json says here: nothing of the gateway or of models."""


@dataclass(frozen=True)
class Developer:
    """A home folder and what OpenCode does in it."""

    folder: Path

    @property
    def environment(self) -> dict[str, str]:
        """The environment that OpenCode runs in."""
        return opencode_environment(self.folder)

    @property
    def stored(self) -> dict[str, dict[str, str]]:
        """The credentials that OpenCode keeps, by address or provider."""
        found: dict[str, dict[str, str]] = json.loads(self.place_of_credentials.read_text())
        return found

    @property
    def place_of_credentials(self) -> Path:
        """The file that it keeps them in."""
        return self.folder / "home" / ".local" / "share" / "opencode" / "auth.json"

    def __call__(self, *arguments: str, **variables: str) -> Outcome:
        """Run `opencode` with arguments to its end, without a terminal and with further variables."""
        done = subprocess.run(
            [program(), *arguments],
            cwd=self.folder,
            env=self.environment | variables,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=COMMAND_S_MAX,
            check=False,
            encoding="utf-8",
            start_new_session=True,  # whoever runs the tests may be at a terminal
        )
        return Outcome(done.returncode, done.stdout, done.stderr)

    def logs_in(self, url: str, key: str) -> None:
        """Log in to a gateway with a key that the environment holds, as a script does."""
        done = self("auth", "login", url, PENSTOCK_KEY=key)
        assert (done.code, "Logged into" in done.out + done.err) == (0, True), done

    def models(self, provider: str = "penstock") -> list[str]:
        """Return what OpenCode lists of a provider, without the provider's name."""
        done = self("models")
        assert done.code == 0, done
        return [line.removeprefix(f"{provider}/") for line in done.out.split() if line.startswith(f"{provider}/")]

    def described(self, provider: str = "penstock") -> dict[str, dict[str, Any]]:
        """Return what OpenCode knows of each model of a provider, by the model's name."""
        done = self("models", provider, "--verbose")
        assert done.code == 0, done
        decoder, found, text = json.JSONDecoder(), {}, done.out
        while (start := text.find("{")) >= 0:
            document, end = decoder.raw_decode(text[start:])
            found[document["id"]] = document
            text = text[start + end :]
        return found

    def works(self, message: str, *arguments: str, config: dict[str, Any] | None = None) -> OpenCodeRun:
        """Let it do something, with no model named and nothing configured but that tools may run, and `config`."""
        run = run_opencode(self.folder, message, *arguments, config=ANY_TOOL | (config or {}))
        assert not run.timed_out, run
        return run

    def penstock(self, *arguments: str, key: str) -> Outcome:
        """Run `penstock` with a key in the environment."""
        return Penstock(self.folder, {"PENSTOCK_KEY": key})(*arguments)
