"""An environment with litellm, which cannot share one with the suite: it wants an older `openai` than the suite uses.

Made once from requirements/litellm.txt, hashes checked, in `.cache/litellm-venv`; made again when that file changes.
The gateway itself is taken from the checkout.
"""

from __future__ import annotations

import fcntl
import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
LOCK = REPOSITORY / "requirements" / "litellm.txt"
FOLDER = REPOSITORY / ".cache" / "litellm-venv"
INSTALL_S_MAX = 600.0


def litellm_python() -> Path:
    """Return the interpreter of the environment, made where it is missing: a minute, and 500 MB.

    Two suites at once make it once. Raises CalledProcessError when it cannot be made.
    """
    FOLDER.parent.mkdir(exist_ok=True)
    with FOLDER.with_suffix(".lock").open("w") as guard:
        fcntl.flock(guard, fcntl.LOCK_EX)
        stamp = FOLDER / "made-from.txt"
        made_from = f"{sys.version} {FOLDER} {hashlib.sha256(LOCK.read_bytes()).hexdigest()}"
        python = FOLDER / "bin" / "python"
        if not stamp.exists() or stamp.read_text() != made_from:
            shutil.rmtree(FOLDER, ignore_errors=True)
            _run(sys.executable, "-m", "venv", str(FOLDER))
            pip = (str(python), "-m", "pip", "--disable-pip-version-check", "--no-input")
            _run(*pip, "install", "--quiet", "--require-hashes", "--requirement", str(LOCK))
            stamp.write_text(made_from)
        return python


def _run(*command: str) -> None:
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL, timeout=INSTALL_S_MAX)
