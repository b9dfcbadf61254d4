"""nginx as a plain reverse proxy on the gateway's core: what a proxy that does nothing costs on this machine."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bench.errors import BenchError
from bench.pinning import pinned
from bench.processes import Background
from gateway.dev.files import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

READY_S_MAX = 10.0
READY_POLL_S = 0.01
VERSION_S_MAX = 10.0
# Where it is installed for root alone to find, as on Debian.
MORE_PATHS = "/usr/sbin:/usr/local/sbin"
HOW_TO_INSTALL = "apt-get install nginx-light (Debian, Ubuntu), dnf install nginx (Fedora), apk add nginx (Alpine)"

CONFIG = """\
daemon off;
worker_processes 1;
pid {directory}/nginx.pid;
error_log {directory}/error.log warn;
events {{ worker_connections 8192; }}
http {{
  access_log off;
  client_body_temp_path {directory}/body;
  proxy_temp_path {directory}/proxy;
  fastcgi_temp_path {directory}/fastcgi;
  uwsgi_temp_path {directory}/uwsgi;
  scgi_temp_path {directory}/scgi;
  client_max_body_size 8m;
  client_body_buffer_size 1m;
  keepalive_requests 100000000;
  upstream engine {{ server 127.0.0.1:{engine_port}; keepalive 1024; keepalive_requests 100000000; }}
  server {{
    listen 127.0.0.1:{port} backlog=4096;
    location / {{
      proxy_pass http://engine;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_buffering off;
    }}
  }}
}}
"""


@dataclass(frozen=True, slots=True)
class Nginx:
    """A running nginx with one worker."""

    port: int
    process: Background


@dataclass(frozen=True, slots=True)
class NginxProgram:
    """An installed nginx: its path and what it says its version is."""

    path: str
    version: str


def find_nginx() -> NginxProgram | None:
    """Return the nginx of this machine; None when there is none that runs."""
    path = shutil.which("nginx") or shutil.which("nginx", path=MORE_PATHS)
    if path is None:
        return None
    try:
        said = subprocess.run([path, "-v"], capture_output=True, text=True, timeout=VERSION_S_MAX, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return NginxProgram(path, said.stderr.strip().removeprefix("nginx version: "))


@contextmanager
def running_nginx(program: NginxProgram, engine_port: int, cores: frozenset[int], directory: Path) -> Iterator[Nginx]:
    """Run nginx in front of an engine. Raises BenchError when it does not start."""
    directory.mkdir(parents=True, exist_ok=True)
    config, port = directory / "nginx.conf", free_port()
    config.write_text(CONFIG.format(directory=directory, engine_port=engine_port, port=port), "utf-8")
    with pinned(cores):
        process = Background(
            [program.path, "-c", str(config), "-p", str(directory), "-e", str(directory / "error.log")],
            directory / "nginx.log",
        )
    with process:
        deadline_s = time.monotonic() + READY_S_MAX
        while not _listens(port):
            process.check_running()
            if time.monotonic() > deadline_s:
                raise BenchError(f"nginx did not start; --no-nginx measures without it:\n{process.tail()}")
            time.sleep(READY_POLL_S)
        yield Nginx(port, process)


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1.0).close()
    except OSError:
        return False
    return True
