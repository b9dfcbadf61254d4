"""The watcher: every way in which a file is replaced is noticed, and a wrong file changes nothing."""

from __future__ import annotations

import asyncio
import contextlib
import os
from typing import TYPE_CHECKING

import pytest
from structlog.testing import capture_logs

from gateway.settings import ConfigFileError, ConfigWatcher
from gateway.settings.watcher import POLL_INTERVAL_S

if TYPE_CHECKING:
    from pathlib import Path

    from gateway.domain.config import GatewayConfig


def text(*models: str, pool: str = "") -> str:
    listed = ", ".join(f"{model}: {{pool: gpu}}" for model in models)
    return f"pools: {{gpu: {{engine: vllm, endpoints: [http://a]{pool}}}}}\nmodels: {{{listed}}}\n"


async def settled(watcher: ConfigWatcher) -> GatewayConfig | None:
    """Look as often as it takes for one change to be taken: once to see it, once more to see it left alone."""
    assert await watcher.check() is None
    return await watcher.check()


def write(path: Path, content: str | None) -> None:
    """Write in place; None removes the file."""
    if content is None:
        path.unlink()
    else:
        path.write_text(content)


def replace(path: Path, content: str) -> None:
    """Rename a new file of the same size and time over the old one."""
    before = path.stat()
    new = path.with_suffix(".new")
    new.write_text(content)
    os.utime(new, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert new.stat().st_size == before.st_size
    new.rename(path)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "penstock.yaml"
    path.write_text(text("one"))
    return path


@pytest.fixture
def watcher(path: Path) -> ConfigWatcher:
    watcher = ConfigWatcher(path)
    watcher.load()
    return watcher


async def test_nothing_happens_while_the_file_stays_the_same(watcher: ConfigWatcher) -> None:
    assert await settled(watcher) is None
    assert watcher.generation == 1


async def test_a_file_written_in_place(watcher: ConfigWatcher, path: Path) -> None:
    write(path, text("one", "two"))
    config = await settled(watcher)
    assert config is watcher.config
    assert config is not None
    assert list(config.models) == ["one", "two"]
    assert watcher.generation == 2
    assert await settled(watcher) is None


async def test_a_file_renamed_over_the_old_one_with_its_size_and_time(watcher: ConfigWatcher, path: Path) -> None:
    replace(path, text("two"))
    config = await settled(watcher)
    assert config is not None
    assert list(config.models) == ["two"]


async def test_a_configmap_whose_folder_is_swapped(tmp_path: Path) -> None:
    for name, model in (("..v1", "one"), ("..v2", "two")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "penstock.yaml").write_text(text(model))
    (tmp_path / "..data").symlink_to("..v1")
    (tmp_path / "penstock.yaml").symlink_to("..data/penstock.yaml")
    watcher = ConfigWatcher(tmp_path / "penstock.yaml")
    assert list(watcher.load().models) == ["one"]
    (tmp_path / "..data_tmp").symlink_to("..v2")
    (tmp_path / "..data_tmp").rename(tmp_path / "..data")
    config = await settled(watcher)
    assert config is not None
    assert list(config.models) == ["two"]


async def test_half_a_file_is_not_taken(watcher: ConfigWatcher, path: Path) -> None:
    write(path, text("one", "two"))
    assert await watcher.check() is None
    write(path, text("one", "two", "three"))
    assert await watcher.check() is None
    config = await watcher.check()
    assert config is not None
    assert list(config.models) == ["one", "two", "three"]


async def test_a_comment_is_no_new_configuration(watcher: ConfigWatcher, path: Path) -> None:
    write(path, text("one") + "# why\n")
    assert await settled(watcher) is None
    assert (watcher.generation, watcher.last_error) == (1, None)


async def test_a_wrong_file_is_refused_and_said_once(watcher: ConfigWatcher, path: Path) -> None:
    good = watcher.config
    with capture_logs() as logs:
        write(path, "pools: {}\n")
        for _ in range(5):
            assert await watcher.check() is None
        os.utime(path)  # touched, and wrong as before
        for _ in range(5):
            assert await watcher.check() is None
    [line] = logs
    assert (line["event"], line["log_level"]) == ("config_refused", "error")
    assert line["problems"] == [f"{path}:1:1: models: is required", f"{path}:1:8: pools: must not be empty"]
    assert (watcher.config, watcher.generation) == (good, 1)
    assert watcher.last_error is not None


async def test_a_file_that_is_right_again_clears_the_error(watcher: ConfigWatcher, path: Path) -> None:
    write(path, "pools: {}\n")
    await settled(watcher)
    write(path, text("two"))
    assert await settled(watcher) is not None
    assert (watcher.generation, watcher.last_error) == (2, None)


async def test_a_file_that_is_gone_leaves_the_old_configuration(watcher: ConfigWatcher, path: Path) -> None:
    write(path, None)
    assert await settled(watcher) is None
    assert "cannot be read" in str(watcher.last_error)
    assert watcher.generation == 1


async def test_a_credential_file_that_changes_is_read_again(tmp_path: Path, path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("first")
    write(path, text("one", pool=", api_key_file: key"))
    watcher = ConfigWatcher(path)
    watcher.load()
    assert await settled(watcher) is None
    key.write_text("second")
    config = await settled(watcher)
    assert config is not None
    assert config.pools["gpu"].api_key is not None
    assert config.pools["gpu"].api_key.get_secret_value() == "second"


async def test_a_credential_file_that_was_missing_mends_the_configuration(
    tmp_path: Path, path: Path, watcher: ConfigWatcher
) -> None:
    write(path, text("one", pool=", api_key_file: key"))
    assert await settled(watcher) is None
    assert "cannot be read" in str(watcher.last_error)
    assert await settled(watcher) is None
    (tmp_path / "key").write_text("credential")
    assert await settled(watcher) is not None
    assert watcher.last_error is None


def test_a_wrong_file_at_the_start_is_an_error(path: Path) -> None:
    write(path, "pools: {}\n")
    watcher = ConfigWatcher(path)
    with pytest.raises(ConfigFileError):
        watcher.load()
    assert (watcher.config, watcher.generation) == (None, 0)


async def test_running_hands_over_each_new_configuration_until_cancelled(path: Path) -> None:
    watcher = ConfigWatcher(path, interval_s=0.001)
    watcher.load()
    taken: asyncio.Queue[GatewayConfig] = asyncio.Queue()
    task = asyncio.create_task(watcher.run(taken.put_nowait))
    try:
        for model in ("two", "three"):
            write(path, text(model))
            async with asyncio.timeout(30):
                assert list((await taken.get()).models) == [model]
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
    assert watcher.generation == 3


def test_two_looks_leave_time_to_read_within_a_second() -> None:
    assert 2 * POLL_INTERVAL_S <= 0.7
