"""`penstock org`: organizations, the outermost tenants."""

import asyncio
from operator import itemgetter
from typing import TYPE_CHECKING, Annotated

import typer

from gateway.cli.on_gateway import on_gateway
from gateway.cli.options import Json, PostgresDsn
from gateway.cli.output import answer, answer_rows
from gateway.cli.progress import progress
from gateway.errors import InvalidRequest

if TYPE_CHECKING:
    from gateway.admin.erasure import Erased
    from gateway.cli.api import Api

app = typer.Typer(help="Organizations, the outermost tenants.", no_args_is_help=True, add_completion=False)


@app.command()
@on_gateway
def create(
    api: "Api",
    name: Annotated[str, typer.Argument(help="What it is called; unique.")],
    *,
    as_json: Json = False,
) -> None:
    """Make an organization."""
    made = api.post("organizations", body={"name": name})
    answer(made, f"organization {made['name']} made, id {made['id']}", as_json=as_json)


@app.command("list")
@on_gateway
def list_(api: "Api", *, as_json: Json = False) -> None:
    """List the organizations."""
    found = api.every("organizations")
    found.sort(key=itemgetter("name"))
    columns = {"name": "name", "id": "id", "created": "created_at"}
    answer_rows(found, columns, empty="no organizations yet; make one with: penstock org create NAME", as_json=as_json)


@app.command()
@on_gateway
def rename(
    api: "Api",
    organization: Annotated[str, typer.Argument(help="Id or name of the organization.")],
    name: Annotated[str, typer.Argument(help="What it is called from now on; unique.")],
    *,
    as_json: Json = False,
) -> None:
    """Rename an organization. Its keys, limits and usage stay."""
    now = api.patch("organizations", organization, body={"name": name})
    answer(now, f"organization {now['id']} is called {now['name']} now", as_json=as_json)


@app.command()
@on_gateway
def delete(
    api: "Api",
    organization: Annotated[str, typer.Argument(help="Id or name of the organization.")],
    *,
    as_json: Json = False,
) -> None:
    """Delete an organization, for ever: every replica refuses its keys within a second, and its name is free again.

    What it used stays in the ledger, and its names in reports, until it is erased: penstock org erase.
    """
    gone = api.delete("organizations", organization)
    answer(gone, f"organization {gone['name']} is deleted, id {gone['id']}", as_json=as_json)


@app.command()
def erase(
    organization: Annotated[str, typer.Argument(help="Id of the deleted organization, or the name that it had.")],
    *,
    yes: Annotated[bool, typer.Option("--yes", help="Do it: it cannot be undone.")] = False,
    with_usage: Annotated[
        bool, typer.Option("--with-usage", help="Remove its part of the ledger, too, with all sums and money.")
    ] = False,
    as_json: Json = False,
    postgres_dsn: PostgresDsn = None,
) -> None:
    """Erase a deleted organization: its names, users, keys, memberships, limits, and who is behind its usage.

    Sums and money stay in the ledger under ids that nothing leads back from, unless --with-usage is given. Stop it when
    you like and start it again. Requests that were still running may write who they were after it: erase once more when
    the longest request and whatever waits in a spool have ended.
    """
    if not yes:
        raise InvalidRequest(
            "erasing cannot be undone: say --yes to do it; `penstock org erase --help` tells what goes"
        )
    from gateway.admin.database import session_on  # noqa: PLC0415 - no other command of these needs a database
    from gateway.admin.erasure import erase_organization  # noqa: PLC0415 - see above
    from gateway.admin.scope import PLATFORM  # noqa: PLC0415 - see above
    from gateway.cli.connect import control  # noqa: PLC0415 - see above

    place = control(postgres_dsn)

    async def work() -> "Erased":
        with progress() as tell:
            async with session_on(place.address) as db:
                async for erased in erase_organization(db, PLATFORM, organization, with_usage=with_usage):
                    tell(f"{sum(erased.cleared.values()):,} rows of the ledger")
        return erased

    erased = asyncio.run(work())
    answer(erased, _sentence(erased), as_json=as_json)


def _sentence(erased: "Erased") -> str:
    counts = {**erased.removed, **erased.cleared}
    what = ", ".join(f"{count:,} {name}" for name, count in counts.items() if count) or "nothing was left to erase"
    return f"organization {erased.organization_id} is erased: {what}"
