"""The text of the repository is at home anywhere: no folder of one machine, no mirror of one network, no left-overs."""

from __future__ import annotations

import json
import re

from tests.support.source import REPOSITORY, fail_for, files

# Absolute paths below somebody's home or work folder; `/root` alone is an account's name in many a sentence.
FOREIGN_FOLDER = re.compile(r"(?<![\w.$}/-])/(?:home|root|Users|mnt|media|work|workspace|builds)/[\w.-]")
# An index that is not the default one: wherever it is named, others cannot reach it.
FOREIGN_INDEX = re.compile(
    r"--(?:extra-)?index-url|--find-links|--trusted-host|\bregistry\s*=\s*https?:|[\w-]+\.(?:internal|corp|lan|intra)\b"
)
LEFT_OVER = re.compile(r"\b(?:TO" + r"DO|FIX" + r"ME|XX" + r"X|HA" + r"CK)\b|^(?:<{7}|>{7}|={7})(?: |$)", re.MULTILINE)
OWN = "tests/house/test_words.py"
NPM = "https://registry.npmjs.org/"


def test_nothing_names_a_folder_of_one_machine() -> None:
    _fail_for_matches(FOREIGN_FOLDER)


def test_nothing_names_a_mirror() -> None:
    _fail_for_matches(FOREIGN_INDEX)
    for path in files():
        if path.name == "package-lock.json":
            packages = json.loads((REPOSITORY / path).read_text())["packages"]
            addresses = [about["resolved"] for about in packages.values() if "resolved" in about]
            fail_for(f"{path}: {address}" for address in addresses if not address.startswith(NPM))


def test_nothing_was_left_for_later() -> None:
    """What is not done is an issue, not a comment."""
    _fail_for_matches(LEFT_OVER)


def _fail_for_matches(pattern: re.Pattern[str]) -> None:
    fail_for(
        f"{path}:{number} {line.strip()[:100]}"
        for path in files()
        if str(path) != OWN
        for number, line in enumerate((REPOSITORY / path).read_text(encoding="utf-8").splitlines(), 1)
        if pattern.search(line)
    )
