"""Options that several commands share, so that they are named and explained the same everywhere."""

from typing import Annotated, Literal, TypeAlias

import typer

Json: TypeAlias = Annotated[bool, typer.Option("--json", help="Answer with one JSON document on standard output.")]

PostgresDsn: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--postgres-dsn",
        metavar="ADDRESS",
        help="Postgres of the gateway. Default: PENSTOCK_POSTGRES_DSN, else a `penstock dev` running in this folder.",
    ),
]

Organization: TypeAlias = Annotated[
    str | None, typer.Option("--org", metavar="ORG", help="Id or name of an organization.")
]

RequiredOrganization: TypeAlias = Annotated[
    str, typer.Option("--org", metavar="ORG", help="Id or name of the organization that it belongs to.")
]

ExpiresIn: TypeAlias = Annotated[
    str | None,
    typer.Option("--expires-in", metavar="30d", help="How long it is valid: 30d, 12h. Default: until it is revoked."),
]

Auth: TypeAlias = Annotated[
    Literal["keys", "none"] | None,
    typer.Option(
        "--auth",
        help="none: nobody needs a key, and all that is used is the organization local's; on loopback alone.",
        show_default="keys",
    ),
]
