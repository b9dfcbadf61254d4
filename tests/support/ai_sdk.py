"""The AI SDK of npm (`ai` with `@ai-sdk/openai-compatible`) at one piece of work, in a Node process of its own."""

from __future__ import annotations

import json
import subprocess
from typing import Any

from tests.support.npm import PINNED, installed, program

RUN_S_MAX = 60.0


def run_ai_sdk(base_url: str, key: str, **job: Any) -> dict[str, Any]:
    """Let `generateText`, or with `stream` `streamText`, do a job and return how it went.

    Args:
        base_url: with `/v1`.
        key: of the gateway.
        job: `model`, `prompt`; `stream`, `tool` (the name of one that finds what is asked for), `fields` (more of the
            request's body), `retries`, `hang_up_after` (so many pieces of text).

    Returns:
        `text`, `steps` (each with `finish`, `calls`, `results`), `usage`, `reasoning`, `pieces`; or `aborted`; or
        `error` (`name`, `message`, `status`). And `answers`: every HTTP answer with its times and what it said of them.
    """
    script = (PINNED / "ask.mjs").read_text()  # from standard input, so that packages are looked for in the cache
    done = subprocess.run(
        [program("node"), "--input-type=module", "-", json.dumps({"base_url": base_url, "key": key, **job})],
        cwd=installed(),
        input=script,
        capture_output=True,
        timeout=RUN_S_MAX,
        check=False,
        text=True,
    )
    assert done.returncode == 0, done
    outcome: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return outcome
