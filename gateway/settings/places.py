"""Where a person's own files are: folders that the environment names."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def person_config_folder() -> Path:
    """Return the folder of this person's configuration of Penstock, which need not exist.

    By the XDG Base Directory Specification `$XDG_CONFIG_HOME/penstock`, else `~/.config/penstock`; on Windows below
    `%APPDATA%`. A relative XDG_CONFIG_HOME is ignored, as the specification says.
    """
    base = Path(os.environ.get("APPDATA" if sys.platform == "win32" else "XDG_CONFIG_HOME", ""))
    return (base if base.is_absolute() else Path.home() / ".config") / "penstock"
