"""The demo tenant of the development environment and the file that remembers its keys.

The database stores only what verifies a key, so the keys themselves are kept beside it, readable for their owner alone.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from gateway.admin.bootstrap import DemoKeys, ensure_demo_tenant
from gateway.dev.files import read_json, write_private_json

if TYPE_CHECKING:
    from pathlib import Path

    from gateway.authenticate.key import Peppers

KEYS_FILE = "dev-keys.json"


def demo_keys(postgres_dsn: str, peppers: Peppers, data_dir: Path) -> DemoKeys:
    """Make what is missing of the demo tenant and return its keys, the same at every start while they work.

    Raises GatewayError when the database is away or not migrated.
    """
    file = data_dir / KEYS_FILE
    kept = read_json(file)
    keep = None
    if isinstance(kept.get("api_key"), str) and isinstance(kept.get("admin_key"), str):
        keep = DemoKeys(api_key=kept["api_key"], admin_key=kept["admin_key"])
    keys = asyncio.run(ensure_demo_tenant(postgres_dsn, peppers, keep))
    if keys != keep:
        write_private_json(file, {"api_key": keys.api_key, "admin_key": keys.admin_key})
    return keys
