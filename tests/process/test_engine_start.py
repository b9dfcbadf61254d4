"""How `penstock engine` starts, or says what to do so that it would; and with which code it ends."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence

import pytest

from tests.support.interrupts import interrupts_heard

COMMAND = (sys.executable, "-m", "gateway.dev.engine")
# Wide enough for one line, no colours: what is looked for is the sentence.
PLAIN = {**os.environ, "COLUMNS": "200", "NO_COLOR": "1", "TERM": "dumb"}


def refused(*arguments: str, before: Sequence[str] = ()) -> tuple[int, str]:
    """Run the command, which ends by itself; return its exit code and what it said."""
    ended = subprocess.run(
        [*before, *COMMAND, *arguments], capture_output=True, text=True, timeout=30, check=False, env=PLAIN
    )
    assert ended.stdout == ""
    assert "Traceback" not in ended.stderr
    return ended.returncode, ended.stderr


def files_at_most(soft: int, hard: int) -> Sequence[str]:
    """Return what a command is put behind to be run with these limits of open files."""
    return ("/bin/sh", "-c", f'ulimit -S -n {soft} && ulimit -H -n {hard} && exec "$@"', "sh")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--model=",), "--model: the name is empty"),
        (("--lora=",), "--lora: the name is empty"),
        (("--model=a", "--model=a"), "--model: the name 'a' is given twice"),
        (("--model=a", "--lora=a"), "--lora: the name 'a' is given twice"),
        (("--lora=penstock-sim",), "--lora: the name 'penstock-sim' is given twice"),
        (("--model=a\nb",), "--model: the name 'a\\nb' has a character that cannot be printed"),
        (("--ttft-ms=nan",), "must be a number from 0 to 600000"),
        (("--tokens-per-second=nan",), "must be a number from 0 to 1000000"),
        (("--prefill-tokens-per-second=nan",), "must be a number from 0 to 1000000"),
        (("--load-slowdown=nan",), "must be a number from 0 to 1000"),
        (("--ttft-ms=-1",), "must be a number from 0 to 600000"),
        (("--ttft-ms=inf",), "must be a number from 0 to 600000"),
    ],
)
def test_an_option_that_cannot_be_is_told(arguments: tuple[str, ...], said: str) -> None:
    code, shown = refused("--port=0", *arguments)
    assert (code, said in shown) == (2, True), shown


def test_what_is_in_the_way_of_serving_is_told_with_the_next_step() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, shown = refused(f"--port={port}")
    step = "Address already in use; stop what serves there, or choose another --port"
    assert (code, f"cannot serve on 127.0.0.1:{port}: {step}" in shown) == (1, True), shown
    code, shown = refused("--host=192.0.2.1", "--port=0")
    assert (code, "; give a --host that this machine has" in shown) == (1, True), shown
    code, shown = refused("--engines=100", "--port=0", before=files_at_most(64, 64))
    said = "100 engines need 132 open files, and the limit is 64: allow more open files (ulimit -n), or run fewer"
    assert (code, said in shown) == (1, True), shown


def test_the_soft_limit_of_open_files_is_raised_and_all_engines_answer() -> None:
    """The hard limit is what the command says that it needs, and is enough for that."""
    command = [*files_at_most(64, 132), *COMMAND, "--engines=100", "--port=0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=PLAIN) as process:
        assert process.stdout is not None
        try:
            said = [process.stdout.readline() for _ in range(100)]
            port = int(said[-1].split("/v1")[0].rsplit(":", 1)[1])
            with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
                connection.sendall(b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n")
                assert connection.recv(12) == b"HTTP/1.1 200"
        finally:
            process.kill()


@pytest.mark.parametrize(("host", "warned"), [("0.0.0.0", True), ("127.0.0.1", False)])  # noqa: S104 - it is the case
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, -signal.SIGTERM)])
def test_strangers_are_warned_of_and_a_signal_ends_it_as_a_shell_expects(
    host: str, number: signal.Signals, code: int, *, warned: bool
) -> None:
    command = [*COMMAND, f"--host={host}", "--port=0"]
    with interrupts_heard():
        started = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=PLAIN)
    with started as process:
        assert process.stdout is not None
        try:
            port = int(process.stdout.readline().split("/v1")[0].rsplit(":", 1)[1])
            with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
                connection.sendall(b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n")
                assert connection.recv(12) == b"HTTP/1.1 200"
            process.send_signal(number)
            _, shown = process.communicate(timeout=20)
        finally:
            process.kill()
    assert process.returncode == code
    assert (f"warning: whoever reaches {host} can read requests with their keys" in shown) == warned
