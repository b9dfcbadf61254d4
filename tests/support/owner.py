"""A process that owns embedded servers and a child that depends on them, for tests that kill it.

Run as `python -m tests.support.owner DIRECTORY`. It says on standard output that all of it runs, as JSON, then waits
until its standard input ends.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from gateway.dev.children import Child, ChildSpec, wait_until
from gateway.dev.servers import running_servers

READY_S_MAX = 60.0
DEPENDANT = """
import os, signal, sys
server = int(sys.argv[1])
def stop(*_):
    print("the server runs" if os.path.exists(f"/proc/{server}") else "the server is gone", flush=True)
    sys.exit(0)
signal.signal(signal.SIGTERM, stop)
print("up", flush=True)
while True:
    signal.pause()
"""


def main() -> None:
    """Own the servers until standard input ends."""
    directory = Path(sys.argv[1])
    with running_servers(directory) as servers:
        postgres = servers.children[-1]
        argv = (sys.executable, "-I", "-c", DEPENDANT, str(postgres.pid))
        spec = ChildSpec("dependant", argv, log=directory / "logs" / "dependant.log", cwd=directory)
        with Child(spec, depends_on=servers.children) as dependant:
            wait_until(lambda: "up" in dependant.log_tail(), dependant, READY_S_MAX)
            pids = [child.pid for child in (*servers.children, dependant)]
            sys.stdout.write(json.dumps({"postgres_dsn": servers.postgres_dsn, "pids": pids}) + "\n")
            sys.stdout.flush()
            sys.stdin.read()


if __name__ == "__main__":
    main()
