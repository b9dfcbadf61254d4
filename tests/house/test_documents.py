"""What the documents promise exists: targets, commands, settings, files. A page that lies is worse than none."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from gateway.cli.lazy import COMMANDS
from gateway.edge.opencode_login import KEY_VARIABLE
from gateway.settings import Settings
from gateway.settings.process import ENV_PREFIX
from gateway.settings.reference import reference
from tests.support.source import GENERATED, REPOSITORY, fail_for, files, modules

if TYPE_CHECKING:
    from collections.abc import Iterator

TARGET = re.compile(r"^([a-z][a-z-]*):(?! *=)(?:[^#\n]*?)(?: +## +(\S.*))?$", re.MULTILINE)
MAKE = re.compile(r"(?:`|\$ |^ *)make ([a-z][a-z-]+)(?=[`\s;:,.)]|$)", re.MULTILINE)
COMMAND = re.compile(r"(?:`|\$ |^ *)penstock ([a-z][a-z-]+)", re.MULTILINE)
VARIABLE = re.compile(rf"\b{ENV_PREFIX}([A-Z][A-Z_]+)\b")
OPTION_VARIABLE = re.compile(rf'envvar="{ENV_PREFIX}([A-Z_]+)"')
LINK = re.compile(r"\[[^\]]+\]\((?!https?:|#|mailto:)([^)#\s]+)")
CODE_PATH = re.compile(r"`((?:gateway|tests|docs|alembic|bench|scripts|deploy|helm)/[\w./-]+)`")
TEST_VARIABLES = frozenset({"TEST_POSTGRES_DSN", "TEST_REDIS_URL"})
CLIENT_VARIABLES = frozenset({KEY_VARIABLE.removeprefix(ENV_PREFIX)})
"""What people set for their own programs: no setting of the gateway."""
INTERNAL_TARGETS = frozenset({"install-test"})


def test_the_settings_page_is_up_to_date() -> None:
    """`make docs` writes it."""
    assert (REPOSITORY / "docs" / "configuration.md").read_text(encoding="utf-8") == reference()


def test_every_setting_is_described() -> None:
    fail_for(name for name, field in Settings.model_fields.items() if len(field.description or "") < len("Its purpose"))


def test_every_make_target_is_listed_and_phony() -> None:
    text = (REPOSITORY / "Makefile").read_text()
    found = dict(TARGET.findall(text))
    phony = set(re.findall(r"^\.PHONY: (.*)$", text, re.MULTILINE)[0].split())
    assert phony == set(found)
    fail_for(name for name, help_text in found.items() if not help_text and name not in INTERNAL_TARGETS)


def test_what_documents_tell_to_make_exists() -> None:
    targets = {name for name, _ in TARGET.findall((REPOSITORY / "Makefile").read_text())}
    fail_for(f"{path}: make {name}" for path, name in _found(MAKE) if name not in targets)


def test_commands_and_variables_of_the_documents_exist() -> None:
    options = {name for module in modules("gateway") for name in OPTION_VARIABLE.findall("\n".join(module.lines))}
    known = {name.upper() for name in Settings.model_fields} | TEST_VARIABLES | CLIENT_VARIABLES | options
    fail_for(f"{path}: penstock {name}" for path, name in _found(COMMAND) if name not in COMMANDS)
    fail_for(f"{path}: {ENV_PREFIX}{name}" for path, name in _found(VARIABLE) if name not in known)


def test_files_that_documents_name_exist() -> None:
    fail_for(
        f"{path}: {name}"
        for path, name in (*_found(LINK), *_found(CODE_PATH))
        if not GENERATED & set(name.split("/"))  # made by a command that the page names
        and not ((REPOSITORY / path).parent / name).exists()
        and not (REPOSITORY / name).exists()
    )


def _found(pattern: re.Pattern[str]) -> Iterator[tuple[str, str]]:
    """Yield the pages and what they mention."""
    for path in files():
        if path.suffix == ".md":
            for mention in pattern.findall((REPOSITORY / path).read_text(encoding="utf-8")):
                yield str(path), mention
