"""The penstock.yaml of the development environment: one pool of simulated engines, one model with a price.

It is written again while nobody has edited it; an edited file is left alone, since it is there to be played with.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from gateway.dev.files import read_json, write_private, write_private_json

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

MODEL = "qwen-coder"
UPSTREAM_MODEL = "Qwen/Qwen3-Coder"
CONTEXT_TOKENS = 262_144
OUTPUT_TOKENS = 65_536
CONFIG_FILE = "penstock.yaml"
WRITTEN_FILE = "penstock.yaml.written"

TEMPLATE = """\
# Written by `penstock dev` for its simulated engines. Edit it while the gateway runs: a valid change is in force within
# a few seconds, an invalid one is refused. An edited file is never overwritten; delete it to get this one back.
pools:
  sim:
    engine: vllm
    endpoints:
{endpoints}
models:
  {model}:
    pool: sim
    upstream: {upstream}   # what the engines call it
    aliases: [default]
    context: {context}
    output: {output}
    price: {{input: "0.20", cached_input: "0.02", output: "0.80"}}   # USD per million tokens
"""


def write_demo_config(data_dir: Path, engine_urls: Sequence[str]) -> tuple[Path, bool]:
    """Write `penstock.yaml` for these engines unless somebody has edited it; return its path and whether it is ours."""
    path = data_dir / CONFIG_FILE
    text = TEMPLATE.format(
        endpoints="\n".join(f'      - "{url}"' for url in engine_urls),
        model=MODEL,
        upstream=UPSTREAM_MODEL,
        context=CONTEXT_TOKENS,
        output=OUTPUT_TOKENS,
    )
    if path.exists() and _digest(path.read_bytes()) != read_json(data_dir / WRITTEN_FILE).get("sha256"):
        return path, False
    if not path.exists() or path.read_bytes() != text.encode():
        write_private_json(data_dir / WRITTEN_FILE, {"sha256": _digest(text.encode())})
        write_private(path, text)
    return path, True


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
