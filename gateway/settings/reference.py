"""The reference page of the process settings, made from the settings themselves.

`python -m gateway.settings.reference > docs/configuration.md`; a house test holds the page to the code.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Literal, get_args, get_origin

from annotated_types import Ge, Le
from pydantic import SecretStr

from gateway.settings.fields import FileSettings
from gateway.settings.process import ENV_PREFIX, Settings

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pydantic.fields import FieldInfo

_HEAD = """\
# Configuration

Generated from the code by `make docs`; edit the descriptions in `gateway/settings/`.

A process reads its settings once, when it starts. The first of these that names a setting wins: a flag of the command
line (`--port 8081`), the environment (`PENSTOCK_PORT=8081`), `settings:` in penstock.yaml (`port: 8081`), the default.
A value out of its bounds is an error at the start, and so is an unknown name in penstock.yaml. An empty variable counts
as not set.

Pools and models are in penstock.yaml alone, which is read again when it changes; `penstock check-config FILE` says
what is wrong with one. Prices may stand there, too, or be set with `penstock price set`.
"""

_ANYWHERE = """\
## Anywhere

From the environment, or as `settings:` in penstock.yaml:

```yaml
settings:
  body_timeout_s: 30
  redis_away_policy: deny
```
"""

_ENVIRONMENT_ONLY = """\
## In the environment alone

Addresses and secrets, which may hold passwords, and the place of penstock.yaml itself.
"""


def reference() -> str:
    """Return the page as Markdown."""
    anywhere = FileSettings.model_fields
    alone = {name: field for name, field in Settings.model_fields.items() if name not in anywhere}
    return "\n".join((_HEAD, _ENVIRONMENT_ONLY, *_table(alone.items()), "", _ANYWHERE, *_table(anywhere.items()), ""))


def _table(fields: Iterable[tuple[str, FieldInfo]]) -> list[str]:
    head = ["| setting | variable | default | allowed | what it is |", "| --- | --- | --- | --- | --- |"]
    return head + [
        f"| `{name}` | `{ENV_PREFIX}{name.upper()}` | {_default(field)} | {_allowed(field)} | {_cell(field)} |"
        for name, field in fields
    ]


def _default(field: FieldInfo) -> str:
    value = field.get_default()
    if isinstance(value, SecretStr):
        value = value.get_secret_value()
    if value is None or value in ("", ()):
        return "none"
    return f"`{_number(value)}`"


def _allowed(field: FieldInfo) -> str:
    if get_origin(field.annotation) is Literal:
        return ", ".join(f"`{choice}`" for choice in get_args(field.annotation))
    extra = field.json_schema_extra
    unit = str(extra["unit"]) if isinstance(extra, dict) and "unit" in extra else ""
    lowest = [bound.ge for bound in field.metadata if isinstance(bound, Ge)]
    highest = [bound.le for bound in field.metadata if isinstance(bound, Le)]
    if not lowest or not highest:
        return unit or "text"
    return f"{_number(lowest[0])} to {_number(highest[0])} ({unit})"


def _number(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:.12g}" if isinstance(value, int | float) else str(value)


def _cell(field: FieldInfo) -> str:
    return (field.description or "").replace("|", "\\|")


def main() -> None:
    """Write the page to standard output."""
    sys.stdout.write(reference())


if __name__ == "__main__":
    main()
