"""The command with which `opencode auth login` gets a person's key, for a POSIX shell or for PowerShell.

OpenCode shows the command, runs it without standard input, and keeps what it prints. The key comes from PENSTOCK_KEY
where that is set (scripts, CI), from the identity provider through `penstock login` where people sign in and have that
command, and else from the person, who is asked on the terminal. Only what looks like a key is printed: what is kept
goes into a header and, as it stands, into JSON. The gateway's address is all that is filled in.
"""

from __future__ import annotations

import shlex
from enum import StrEnum

from gateway.authenticate.key import KEY_PREFIX

KEY_VARIABLE = "PENSTOCK_KEY"


NO_KEY_NEEDED = "local"
"""What stands for a key where none is asked for: OpenCode keeps something in any case."""


class Shell(StrEnum):
    """What runs the command: `sh` everywhere but on Windows without it."""

    SH = "sh"
    POWERSHELL = "powershell"


# A terminal that is left without echo is worse than a key on the screen: whatever ends this, `stty` is undone.
_SH = """\
key=${{{variable}-}}
{sign_in}\
if [ -z "$key" ]; then
  if ! (: </dev/tty) 2>/dev/null; then
    echo 'There is no terminal to ask for a key: set {variable} and try again.' >&2
    exit 1
  fi
  before=$(stty -g </dev/tty 2>/dev/null)
  trap 'stty "$before" </dev/tty 2>/dev/null' EXIT
  trap 'exit 130' HUP INT TERM
  stty -echo </dev/tty 2>/dev/null
  printf 'Paste your key for %s (it is not shown): ' {url} >/dev/tty
  read -r key </dev/tty
  echo >/dev/tty
fi
case $key in
  *[!A-Za-z0-9_-]*) ;;
  {prefix}?*) printf %s "$key"; exit 0 ;;
esac
printf 'That is no key: keys begin with {prefix}. %s/setup says how to get one.\\n' {url} >&2
exit 1
"""

_SH_SIGN_IN = """\
if [ -z "$key" ] && command -v penstock >/dev/null 2>&1; then
  key=$(penstock login {url} --print-key) || exit 1
fi
"""

# No double quotes: Windows has no one way to put them into an argument. `CON` is the console, whatever the standard
# input is; `!key!` is filled in after the line was read, so that nothing in a key is taken for a command.
_POWERSHELL = """\
$key = $env:{variable}
{sign_in}\
if (-not $key) {{
  $key = cmd /d /v:on /c 'set /p key=Paste your key: <CON >CON & echo !key!'
}}
$key = ([string]$key).Trim()
if ($key -cmatch '^{prefix}[A-Za-z0-9_-]+$') {{
  [Console]::Out.Write($key)
  exit 0
}}
[Console]::Error.WriteLine('That is no key: keys begin with {prefix}. ' + {url} + '/setup says how to get one.')
exit 1
"""

_POWERSHELL_SIGN_IN = """\
if (-not $key -and (Get-Command penstock -ErrorAction SilentlyContinue)) {{
  $key = penstock login {url} --print-key
  if ($LASTEXITCODE -ne 0) {{ exit 1 }}
}}
"""


def login_command(url: str, shell: Shell, *, signs_in: bool, needs_key: bool = True) -> list[str]:
    """Return the command as OpenCode starts it: a program and its arguments.

    Args:
        url: the gateway's public address.
        shell: what the person's machine has.
        signs_in: whether people of this gateway sign in with an identity provider.
        needs_key: whether this gateway wants keys at all.
    """
    if not needs_key:
        if shell is Shell.POWERSHELL:
            return ["powershell", "-NoProfile", "-Command", f"[Console]::Out.Write('{NO_KEY_NEEDED}')"]
        return ["sh", "-c", f"printf %s {NO_KEY_NEEDED}"]
    if shell is Shell.POWERSHELL:
        quoted = "'" + url.replace("'", "''") + "'"
        sign_in = _POWERSHELL_SIGN_IN.format(url=quoted) if signs_in else ""
        script = _POWERSHELL.format(url=quoted, sign_in=sign_in, variable=KEY_VARIABLE, prefix=KEY_PREFIX)
        return ["powershell", "-NoProfile", "-Command", script]
    quoted = shlex.quote(url)
    sign_in = _SH_SIGN_IN.format(url=quoted) if signs_in else ""
    return ["sh", "-c", _SH.format(url=quoted, sign_in=sign_in, variable=KEY_VARIABLE, prefix=KEY_PREFIX)]
