"""Options that the commands on the ledger share."""

from typing import Annotated, TypeAlias

import typer

Since: TypeAlias = Annotated[
    str,
    typer.Option("--since", metavar="WHEN", help="Requests opened since 2026-08-01, 2026-08-01T12:00Z (UTC), 24h, 7d."),
]
OptionalSince: TypeAlias = Annotated[
    str | None,
    typer.Option("--since", metavar="WHEN", help="Requests opened since 2026-08-01, 2026-08-01T12:00Z (UTC), 24h, 7d."),
]
VerifySince: TypeAlias = Annotated[
    str,
    typer.Option("--since", metavar="WHEN", help="Requests opened since 2026-08-01, 24h or 7d, and rollups of them."),
]
Until: TypeAlias = Annotated[
    str | None, typer.Option("--until", metavar="WHEN", help="Up to, not including; like --since. Default: now.")
]
