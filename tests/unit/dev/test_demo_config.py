"""The demo's penstock.yaml says what it should, follows the engines, and belongs to whoever edits it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.dev.demo_config import write_demo_config
from gateway.settings import load_config

if TYPE_CHECKING:
    from pathlib import Path

FIRST, SECOND = ["http://127.0.0.1:1001", "http://127.0.0.1:1002"], ["http://127.0.0.1:1003"]


def test_it_is_a_valid_configuration_of_one_model(tmp_path: Path) -> None:
    path, ours = write_demo_config(tmp_path, FIRST)
    config = load_config(path)
    assert ours
    assert config.pools["sim"].endpoints == tuple(FIRST)
    model = config.by_name["default"]
    assert (model.name, model.upstream, model.context_tokens, model.output_tokens) == (
        "qwen-coder",
        "Qwen/Qwen3-Coder",
        262_144,
        65_536,
    )
    assert model.price is not None
    assert (model.price.input_pico_usd, model.price.cached_input_pico_usd, model.price.output_pico_usd) == (
        200_000,
        20_000,
        800_000,
    )


def test_it_follows_the_engines_while_nobody_edits_it(tmp_path: Path) -> None:
    write_demo_config(tmp_path, FIRST)
    path, ours = write_demo_config(tmp_path, SECOND)
    assert ours
    assert load_config(path).pools["sim"].endpoints == tuple(SECOND)


def test_an_edited_file_is_left_alone(tmp_path: Path) -> None:
    path, _ = write_demo_config(tmp_path, FIRST)
    edited = path.read_text() + "# mine\n"
    path.write_text(edited)
    assert write_demo_config(tmp_path, SECOND) == (path, False)
    assert path.read_text() == edited
    path.unlink()
    assert write_demo_config(tmp_path, SECOND) == (path, True)


def test_a_file_from_elsewhere_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "penstock.yaml").write_text("pools: {}\n")
    assert write_demo_config(tmp_path, FIRST) == (tmp_path / "penstock.yaml", False)
