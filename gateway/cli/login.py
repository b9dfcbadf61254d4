"""`penstock login`, `logout` and `whoami`: who a person is at a gateway, and an API key of its own.

What is for people goes to standard error, so that `--print-key` has standard output for the key alone.
"""

import datetime as dt
import getpass
import sys
import warnings
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from gateway.cli.answers import Refused, printable
from gateway.cli.connection import Connection
from gateway.cli.login_flows import Proof, by_browser, by_device, provider_of
from gateway.cli.on_gateway import on_gateway, opened_at
from gateway.cli.options import Json
from gateway.cli.output import answer, shown
from gateway.cli.personal_key import personal_key
from gateway.cli.place import Remote, authorities, check_private
from gateway.cli.profiles import Profile, current_profile, forget, keep, profile_of
from gateway.cli.terminal import choose
from gateway.errors import ConfigError, GatewayError, InvalidKey, InvalidRequest, NotFound, Unavailable
from gateway.settings import load_settings
from gateway.settings.client import gateway_address

if TYPE_CHECKING:
    from gateway.cli.api import Api

KEY_CHARS_MAX: Final = 1_000
MARGIN: Final = dt.timedelta(minutes=1)
"""A session that ends sooner is not worth beginning with."""

_Url = Annotated[
    str | None, typer.Argument(metavar="[URL]", help="Address of the gateway. Default: the one logged in to last.")
]
_CaFile = Annotated[
    Path | None, typer.Option("--ca-file", metavar="FILE", help="Authorities (PEM) to trust instead of the system's.")
]
_InsecureHttp = Annotated[
    bool, typer.Option("--insecure-http", help="Send credentials unencrypted, to an http:// address.")
]


def login(
    url: _Url = None,
    *,
    browser: Annotated[
        bool, typer.Option("--browser", help="Log in with the browser of this machine, not with a code.")
    ] = False,
    callback_port: Annotated[
        int,
        typer.Option(
            "--callback-port",
            min=0,
            max=65_535,
            metavar="N",
            help="Port for the browser to come back to. 0: a free one.",
        ),
    ] = 0,
    key_stdin: Annotated[bool, typer.Option("--key-stdin", help="Read an admin key from standard input.")] = False,
    print_key: Annotated[
        bool, typer.Option("--print-key", help="Print an API key of your own, and nothing else.")
    ] = False,
    tool: Annotated[str, typer.Option("--for", metavar="NAME", help="What that key is for.")] = "opencode",
    team: Annotated[str | None, typer.Option("--team", metavar="TEAM", help="Team that the key belongs to.")] = None,
    expires_in: Annotated[
        str | None,
        typer.Option(
            "--expires-in", metavar="90d", help="How long that key is valid at the most. Default: until revoked."
        ),
    ] = None,
    ca_file: _CaFile = None,
    insecure_http: _InsecureHttp = False,
) -> None:
    """Log in to a gateway: with its identity provider, or with an admin key where it has none.

    Later commands call this gateway as you, for 12 hours or as long as the admin key lasts. --print-key makes an API
    key of your own, one for each machine and tool; called again it gives that key a new text.
    """
    address = _address(url)
    check_private(address, insecure_http=insecure_http)
    ca_file = authorities(load_settings(ca_file=ca_file), profile_of(address))
    profile = _going_on(address, ca_file) if print_key and not key_stdin else None
    if profile is None:
        with Connection(ca_file, insecure_http=insecure_http) as connection:
            profile = _logged_in(connection, address, browser=browser, callback_port=callback_port, key_stdin=key_stdin)
        kept = None if ca_file is None else str(ca_file.resolve())
        profile = replace(profile, insecure_http=insecure_http, ca_file=kept)
        who = _who(profile, ca_file)
        keep(profile)
        until = f", until {shown(profile.expires_at)}" if profile.expires_at else ""
        _tell(f"logged in to {address} as {who}{until}")
    if print_key:
        with opened_at(_place(profile, ca_file)) as api:
            key = personal_key(
                api, tool, team=team, expires_in=expires_in, choose=lambda names: choose("Team for the key", names)
            )
        sys.stdout.write(f"{key}\n")


def logout(url: _Url = None, *, ca_file: _CaFile = None) -> None:
    """Log out of a gateway: the session ends there, and what was kept of it here is removed."""
    profile = profile_of(_address(url)) if url is not None else current_profile()
    if profile is None:
        _tell("not logged in" + ("" if url is None else f" to {_address(url)}"))
        return
    if profile.signed_in:
        try:
            trusted = authorities(load_settings(ca_file=ca_file), profile)
            with Connection(trusted, insecure_http=profile.insecure_http) as connection:
                connection.post(f"{profile.url}/auth/logout", {}, profile.credential)
        except GatewayError as error:
            if error.status != InvalidKey.status:  # it is over already
                _tell(f"note: the session could not be ended at {profile.url} and ends by itself: {error}")
    forget(profile.url)
    _tell(f"logged out of {profile.url}")


@on_gateway
def whoami(api: "Api", *, as_json: Json = False) -> None:
    """Say who you are at the gateway, in which teams, and as what."""
    me = api.get("me")
    answer(me, f"{_named(me)} at {api.place}" + _of_teams(me), as_json=as_json)


def _address(url: str | None) -> str:
    if url is None:
        current = current_profile()
        found = current.url if current is not None else load_settings().url
        if found is None:
            raise ConfigError("which gateway? penstock login https://gateway.example.com")
        return found
    try:
        return gateway_address(url)
    except ValueError as error:
        raise InvalidRequest(f"URL {error}") from None


def _going_on(url: str, ca_file: Path | None) -> Profile | None:
    """Return the login that there is, if it still counts for a person."""
    profile = profile_of(url)
    if profile is None or profile.expired(dt.datetime.now(dt.UTC), margin=MARGIN):
        return None
    try:
        with opened_at(_place(profile, ca_file)) as api:
            return profile if api.get("me")["kind"] == "user" else None
    except Refused as error:
        if error.status == InvalidKey.status:
            return None
        raise


def _logged_in(connection: Connection, url: str, *, browser: bool, callback_port: int, key_stdin: bool) -> Profile:
    if key_stdin:
        return Profile(url, _checked_key(sys.stdin.readline(KEY_CHARS_MAX)))
    told = _sign_in_of(connection, url)
    if told is None:
        return Profile(url, _checked_key(_typed_key(url)))
    provider = provider_of(url, told)
    if browser or provider.device_authorization_endpoint is None:
        proof = by_browser(provider, connection, _tell, callback_port)
    else:
        proof = by_device(provider, connection, _tell)
    session = connection.post(f"{url}/auth/exchange", _exchange(proof))
    return Profile(url, session["credential"], dt.datetime.fromisoformat(session["expires_at"]), signed_in=True)


def _sign_in_of(connection: Connection, url: str) -> dict[str, Any] | None:
    """Return what the gateway tells of its identity provider, None where it has none."""
    try:
        config = connection.get(f"{url}/auth/config")
    except NotFound:
        raise Unavailable(f"{url} does not know how people log in: is it a gateway, and of this release?") from None
    told = config.get("oidc") if isinstance(config, dict) else None
    return told if isinstance(told, dict) else None


def _exchange(proof: Proof) -> dict[str, str]:
    return {"id_token": proof.id_token} | ({} if proof.nonce is None else {"nonce": proof.nonce})


def _typed_key(url: str) -> str:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", getpass.GetPassWarning)  # where it would be shown, it is not asked for
            return getpass.getpass(f"Admin key for {url} (it is not shown): ")
    except (EOFError, OSError, getpass.GetPassWarning):
        raise ConfigError("there is no terminal to ask for an admin key on: give it with --key-stdin") from None


def _checked_key(text: str) -> str:
    key = text.strip()
    if not key or not key.isascii() or not key.isprintable() or len(key) >= KEY_CHARS_MAX:
        raise InvalidRequest("that is no admin key: they begin with adm-pst-")
    return key


def _who(profile: Profile, ca_file: Path | None) -> str:
    with opened_at(_place(profile, ca_file)) as api:
        return _named(api.get("me"))


def _named(me: dict[str, Any]) -> str:
    """Return a person, or a key, in words: alice (team_admin of acme)."""
    where = f" of {printable(me['organization'])}" if me["organization"] and me["role"] != "platform_admin" else ""
    kind = "" if me["kind"] == "user" else "admin key "
    return f"{kind}{printable(me['name'] or me['id'])} ({me['role']}{where})"


def _of_teams(me: dict[str, Any]) -> str:
    teams = ", ".join(f"{printable(team['name'])} ({team['role']})" for team in me["teams"])
    return f"; teams: {teams}" if teams else ""


def _place(profile: Profile, ca_file: Path | None) -> Remote:
    return Remote(profile.url, profile.credential, "penstock login", ca_file)


def _tell(line: str) -> None:
    typer.echo(line, err=True)
