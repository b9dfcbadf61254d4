"""`penstock opencode config`: an opencode.json for a project, made by the gateway for the key in the environment.

The key is sent to the gateway and shown nowhere: OpenCode reads it from the environment as well.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import urlsplit

import httpx2
import msgspec
import typer

from gateway.cli.connect import running_dev
from gateway.cli.output import emit_json
from gateway.edge.opencode import CONFIG
from gateway.edge.opencode_login import KEY_VARIABLE
from gateway.errors import ConfigError
from gateway.settings.secrets import secret_in_environment

if TYPE_CHECKING:
    from pydantic import SecretStr

ANSWER_S_MAX = 10.0
ANSWER_BYTES_MAX = 16 * 2**20

app = typer.Typer(no_args_is_help=True)


@app.callback()
def opencode() -> None:
    """What OpenCode needs for a gateway."""


@app.command()
def config(
    *,
    base_url: Annotated[
        str | None,
        typer.Option(
            "--base-url",
            metavar="URL",
            help="The gateway's address, with /v1 or without. Default: a `penstock dev` running in this folder.",
        ),
    ] = None,
    key_env: Annotated[
        str, typer.Option("--key-env", metavar="NAME", help="The variable that holds the key, now and for OpenCode.")
    ] = KEY_VARIABLE,
    stored_key: Annotated[
        bool,
        typer.Option("--stored-key", help="Leave the key to the one that OpenCode has stored (/connect, Other)."),
    ] = False,
) -> None:
    """Print an opencode.json with the models that a key may use.

    Put it into a project: penstock opencode config > opencode.json. The key itself is not in it.
    """
    if not (key_env.isascii() and key_env.isidentifier()):
        raise typer.BadParameter("--key-env is the name of an environment variable, not the key itself")
    address, key = _gateway(base_url, key_env)
    document = _fetched(address, key, key_env)
    for provider in document["provider"].values():
        if stored_key:
            del provider["options"]["apiKey"]
        else:
            provider["options"]["apiKey"] = f"{{env:{key_env}}}"
        provider["options"]["baseURL"] = f"{address}/v1"  # as it was reached from here
    emit_json(document)


def _gateway(base_url: str | None, key_env: str) -> tuple[str, SecretStr | str]:
    """Return the gateway's address without `/v1`, and a key for it, empty when there is none. Raises ConfigError."""
    key: SecretStr | str | None = secret_in_environment(key_env)
    if base_url is None:
        dev = running_dev()
        base_url = str(dev.get("base_url") or "")
        key = key or str(dev.get("api_key") or "")
        if not base_url:
            raise ConfigError(
                "no gateway to ask: give --base-url, or call this in a folder in which `penstock dev` is running"
            )
    parts = urlsplit(base_url)
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.query or "@" in parts.netloc:
        raise ConfigError("--base-url must be an http:// or https:// address such as https://gateway.example.com")
    return base_url.rstrip("/").removesuffix("/v1"), key or ""


def _fetched(address: str, key: SecretStr | str, key_env: str) -> dict[str, Any]:
    """Return the configuration that the gateway makes for the key. Raises ConfigError, never quoting the key."""
    token = key if isinstance(key, str) else key.get_secret_value()
    if not (token.isascii() and token.isprintable()):
        raise ConfigError(f"what {key_env} holds is no key: it has characters that no key has")
    status, body = _asked(address, token)
    try:
        document = msgspec.json.decode(body) if status == 200 else None
        problem, made = (document["problem"], document["config"]) if document else (None, None)
    except (msgspec.DecodeError, KeyError, TypeError):
        made = None
    if not isinstance(made, dict):
        raise ConfigError(f"{address} is no Penstock gateway, or an older one: it answered {status}")
    if problem is not None and not token:  # a gateway that wants no keys has no problem with this
        raise ConfigError(
            f"no key: set {key_env} to one (export {key_env}=…), the gateway lists the models of that key"
        )
    if problem is not None:
        raise ConfigError(str(problem["message"]))
    return made


def _asked(address: str, token: str) -> tuple[int, bytes]:
    """Return status and body of the gateway's answer. Raises ConfigError when none comes, or no end of it."""
    headers = {"authorization": f"Bearer {token}"} if token else {}
    body, until_s = b"", time.monotonic() + ANSWER_S_MAX
    try:
        with httpx2.stream("GET", address + CONFIG, headers=headers, timeout=ANSWER_S_MAX) as answer:
            for piece in answer.iter_bytes():
                body += piece
                if len(body) > ANSWER_BYTES_MAX or time.monotonic() > until_s:
                    raise ConfigError(f"{address} answers with more than a configuration")
            return answer.status_code, body
    except (httpx2.HTTPError, httpx2.InvalidURL) as error:
        raise ConfigError(f"{address} does not answer: {str(error) or type(error).__name__}") from None
