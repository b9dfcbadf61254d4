"""Before the first request to a litellm pool: the package that is missing, and what importing it would like to do."""

from __future__ import annotations

import socket
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.support.command import Penstock
from tests.support.gateway import GatewayProcess, write_config
from tests.support.litellm_venv import litellm_python
from tests.support.venvs import INSTALL_S_MAX
from tests.support.waiting import wait_for

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.engine import EngineProcess
    from tests.support.tenants import Tenant

CLOUD = {"cloud": {"engine": "litellm"}}
MODELS = {"sim": {"pool": "gpu"}, "claude": {"pool": "cloud", "upstream": "anthropic/claude"}}
NEEDED = "pools.cloud.engine: needs litellm, which is not installed: pip install 'penstock[litellm]'"
IMPORT = """
import os
from gateway.providers.litellm_library import load
assert load() is not None
assert "FROM_A_FILE" not in os.environ
"""


def test_without_the_package_a_replica_does_not_start(tmp_path: Path) -> None:
    config = write_config(tmp_path / "penstock.yaml", ["http://127.0.0.1:1"], models=MODELS, pools=CLOUD)
    penstock = Penstock(tmp_path, {"POSTGRES_DSN": "unused", "REDIS_URL": "unused"})
    for command in (("serve", f"--config={config}"), ("check-config", str(config))):
        done = penstock(*command)
        assert done.code != 0
        assert NEEDED in done.err
        assert "Traceback" not in done.err
    assert penstock("check-config", "--no-credentials", str(config)).code == 0


def test_without_the_package_a_new_configuration_is_refused_and_the_old_one_stays(
    gateway: GatewayProcess, engine: EngineProcess, tenant: Tenant
) -> None:
    write_config(gateway.config, [engine.url], models=MODELS, pools=CLOUD)

    def refused() -> list[str]:
        lines = [line for line in gateway.log_lines() if line["event"] == "config_refused"]
        return [problem for line in lines for problem in line["problems"]]

    problems = wait_for(refused, "the new configuration is refused")
    assert problems[0].endswith(NEEDED)
    asked = {"model": "sim", "messages": [{"role": "user", "content": "hello"}]}
    assert gateway.http(tenant.key).post("/v1/chat/completions", asked).status == 200


@pytest.mark.timeout(INSTALL_S_MAX + 120)
def test_importing_litellm_downloads_reads_and_says_nothing(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("FROM_A_FILE=1\n")
    with socket.create_server(("127.0.0.1", 0)) as proxy:
        proxy.setblocking(False)
        address = f"http://127.0.0.1:{proxy.getsockname()[1]}"
        variables = dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"), address)
        done = subprocess.run(
            [litellm_python(), "-c", IMPORT],
            cwd=tmp_path,
            env=Penstock(tmp_path, variables).environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=60,
            check=False,
            encoding="utf-8",
        )
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        with pytest.raises(BlockingIOError):
            proxy.accept()
