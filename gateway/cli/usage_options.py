"""What a usage report can be asked on the command line."""

from typing import Annotated, TypeAlias

import typer

from gateway.admin.usage_sql import Bucket, Grouping, Order, ReportFormat

By: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--by",
        metavar="THINGS",
        help=f"What to have a row for each of, with commas: {', '.join(Grouping)}."
        " Default: org; nothing with --bucket.",
    ),
]
InBuckets: TypeAlias = Annotated[
    Bucket | None,
    typer.Option("--bucket", help="Also a row for each such time, in UTC, in which something was used."),
]
OfTeam: TypeAlias = Annotated[str | None, typer.Option("--team", metavar="TEAM", help="Only this team's.")]
OfUser: TypeAlias = Annotated[str | None, typer.Option("--user", metavar="USER", help="Only this user's.")]
OfKey: TypeAlias = Annotated[str | None, typer.Option("--key", metavar="KEY", help="Only this key's.")]
OfModel: TypeAlias = Annotated[
    str | None, typer.Option("--model", metavar="MODEL", help="Only what this model served.")
]
OfEngine: TypeAlias = Annotated[
    str | None, typer.Option("--engine", metavar="ENGINE", help="Only what this engine did.")
]
OfSession: TypeAlias = Annotated[str | None, typer.Option("--session", metavar="SESSION", help="Only this session's.")]
Since: TypeAlias = Annotated[
    str | None,
    typer.Option("--since", metavar="WHEN", help="2026-08-01, 2026-08-01T12:00Z (UTC), 24h or 7d. Default: 24h."),
]
Until: TypeAlias = Annotated[
    str | None, typer.Option("--until", metavar="WHEN", help="Up to, not including; like --since. Default: now.")
]
InOrder: TypeAlias = Annotated[
    Order | None, typer.Option("--order", help="By id and time, or the most first. Default: cost; id with --bucket.")
]
Limit: TypeAlias = Annotated[
    int | None, typer.Option("--limit", metavar="N", min=1, help="The first N rows. Default: all.")
]
Form: TypeAlias = Annotated[
    ReportFormat | None, typer.Option("--format", help="Write the report as a file instead of a table.")
]
Output: TypeAlias = Annotated[
    str, typer.Option("--output", metavar="FILE", help="Where a file goes; - is standard output.")
]
