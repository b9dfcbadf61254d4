"""Process settings: where they come from, in which order, and that no secret ever shows."""

from __future__ import annotations

import logging
import os
import traceback
from pathlib import Path

import pytest
from pydantic import ValidationError

from gateway.errors import ConfigError
from gateway.settings import ConfigFileError, Settings, load_settings

PASSWORD = "hunter2-correct-horse"


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No PENSTOCK_* of the developer's shell, and a working directory without a penstock.yaml."""
    for name in [name for name in os.environ if name.upper().startswith("PENSTOCK_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


def settings_file(folder: Path, body: str) -> Path:
    path = folder / "penstock.yaml"
    path.write_text(body)
    return path


def test_defaults_need_nothing_from_outside() -> None:
    settings = load_settings()
    assert (settings.host, settings.port, settings.metrics_port) == ("127.0.0.1", 8080, 9464)
    assert settings.postgres_dsn is None
    assert settings.key_peppers.get_secret_value() == ""
    assert settings.config == Path("penstock.yaml")
    assert settings.timeouts.first_byte_s == 300


def test_flags_win_over_environment_over_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = settings_file(
        tmp_path, "settings: {port: 1001, metrics_port: 1002, log_level: debug, idle_timeout_s: 7.5}\n"
    )
    monkeypatch.setenv("PENSTOCK_PORT", "2001")
    monkeypatch.setenv("PENSTOCK_METRICS_PORT", "2002")
    settings = load_settings(config=path, port=3001, metrics_port=None)
    assert (settings.port, settings.metrics_port, settings.log_level) == (3001, 2002, "debug")
    assert settings.timeouts.idle_s == 7.5


def test_the_file_is_found_through_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PENSTOCK_CONFIG", str(settings_file(tmp_path, "settings: {port: 1001}\n")))
    assert load_settings().port == 1001


def test_a_wrong_setting_in_the_file_is_told_with_its_line(tmp_path: Path) -> None:
    path = settings_file(tmp_path, "settings:\n  port: 80800\n  redis_url: redis://x\n  log_levle: info\n")
    with pytest.raises(ConfigFileError) as refused:
        load_settings()
    assert str(refused.value).splitlines() == [
        "penstock.yaml:2:9: settings.port: must be at most 65535",
        "penstock.yaml:3:3: settings.redis_url: can only be set in the environment, as PENSTOCK_REDIS_URL",
        "penstock.yaml:4:3: settings.log_levle: is not a known key; did you mean 'log_level'?",
    ]
    assert path.name == refused.value.source


def test_a_file_without_settings_sets_nothing(tmp_path: Path) -> None:
    settings_file(tmp_path, "pools: {}\n")
    assert load_settings().port == 8080


def test_empty_variables_count_as_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PENSTOCK_PORT", "")
    monkeypatch.setenv("PENSTOCK_POSTGRES_DSN", "")
    settings = load_settings()
    assert settings.port == 8080
    assert settings.postgres_dsn is None


def test_what_kubernetes_sets_for_a_service_named_penstock_is_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PENSTOCK_PORT", "tcp://10.96.0.7:8080")
    monkeypatch.setenv("PENSTOCK_SERVICE_HOST", "10.96.0.7")
    assert load_settings().port == 8080


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+asyncpg"])
def test_every_spelling_of_a_postgres_address(monkeypatch: pytest.MonkeyPatch, scheme: str) -> None:
    dsn = f"{scheme}://penstock:{PASSWORD}@db:5432/penstock?sslmode=require"
    monkeypatch.setenv("PENSTOCK_POSTGRES_DSN", dsn)
    settings = load_settings()
    assert settings.require_postgres_dsn() == dsn
    assert settings.require_postgres_direct_dsn() == dsn


def test_the_direct_address_is_its_own_when_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PENSTOCK_POSTGRES_DSN", "postgresql://pooler/penstock")
    monkeypatch.setenv("PENSTOCK_POSTGRES_DIRECT_DSN", "postgresql://db/penstock")
    assert load_settings().require_postgres_direct_dsn() == "postgresql://db/penstock"


def test_missing_addresses_are_named_where_they_are_needed() -> None:
    settings = load_settings()
    with pytest.raises(ConfigError, match="PENSTOCK_POSTGRES_DSN is not set; set it to"):
        settings.require_postgres_dsn()
    with pytest.raises(ConfigError, match="PENSTOCK_POSTGRES_DSN is not set"):
        settings.require_postgres_direct_dsn()
    with pytest.raises(ConfigError, match="PENSTOCK_REDIS_URL is not set"):
        settings.require_redis_url()


@pytest.mark.parametrize("url", ["redis://:p@cache:6379/1", "rediss://cache", "unix:///run/redis.sock"])
def test_every_spelling_of_a_redis_address(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("PENSTOCK_REDIS_URL", url)
    assert load_settings().require_redis_url() == url


@pytest.mark.parametrize(
    ("variable", "value", "expected"),
    [
        ("PENSTOCK_PORT", "eighty", "PENSTOCK_PORT must be a whole number"),
        ("PENSTOCK_PORT", "-1", "PENSTOCK_PORT must be at least 0"),
        ("PENSTOCK_BODY_BYTES_MAX", "12", "PENSTOCK_BODY_BYTES_MAX must be at least 1024"),
        ("PENSTOCK_IDLE_TIMEOUT_S", "nan", "PENSTOCK_IDLE_TIMEOUT_S must be a finite number"),
        ("PENSTOCK_IDLE_TIMEOUT_S", "soon", "PENSTOCK_IDLE_TIMEOUT_S must be a number"),
        ("PENSTOCK_REDIS_AWAY_POLICY", "open", "PENSTOCK_REDIS_AWAY_POLICY must be 'local', 'deny' or 'allow'"),
        ("PENSTOCK_LOG_LEVEL", "loud", "PENSTOCK_LOG_LEVEL must be 'debug', 'info', 'warning' or 'error'"),
        (
            "PENSTOCK_REDIS_URL",
            "cache:6379",
            "PENSTOCK_REDIS_URL must start with redis://, rediss://, unix://, redis+sentinel://",
        ),
    ],
)
def test_a_wrong_value_is_named_with_what_is_expected(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, expected: str
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(ConfigError) as refused:
        load_settings()
    assert str(refused.value).startswith(expected)


def test_a_wrong_flag_is_named_as_the_flag(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PENSTOCK_METRICS_PORT", "x")
    with pytest.raises(ConfigError) as refused:
        load_settings(port=70_000)
    assert str(refused.value).splitlines() == [
        "--port must be at most 65535",
        "PENSTOCK_METRICS_PORT must be a whole number",
    ]


def test_level_names_may_be_in_capitals(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PENSTOCK_LOG_LEVEL", "WARNING")
    assert load_settings().log_level == "warning"


def test_no_secret_shows_in_repr_or_log(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setenv("PENSTOCK_POSTGRES_DSN", f"postgresql://u:{PASSWORD}@db/penstock")
    monkeypatch.setenv("PENSTOCK_POSTGRES_DIRECT_DSN", f"postgresql://u:{PASSWORD}@db/penstock")
    monkeypatch.setenv("PENSTOCK_REDIS_URL", f"redis://:{PASSWORD}@cache")
    monkeypatch.setenv("PENSTOCK_KEY_PEPPERS", f"1:{PASSWORD}")
    settings = load_settings()
    logging.getLogger("test").warning("settings: %s %r", settings, settings.model_dump())
    assert PASSWORD not in f"{settings!r} {settings} {settings.model_dump_json()} {caplog.text}"


@pytest.mark.parametrize(
    "dsn",
    [
        f"mysql://u:{PASSWORD}@db/x",
        f"postgresql://u:{PASSWORD}@db:port/x",
        f"postgresql://u:{PASSWORD}@[db/x",
        PASSWORD,
    ],
)
def test_no_secret_shows_in_an_error(monkeypatch: pytest.MonkeyPatch, dsn: str) -> None:
    monkeypatch.setenv("PENSTOCK_POSTGRES_DSN", dsn)
    with pytest.raises(ConfigError) as refused:
        load_settings()
    shown = "".join(traceback.format_exception(refused.value))
    assert "PENSTOCK_POSTGRES_DSN" in str(refused.value)
    assert PASSWORD not in shown


def test_settings_are_frozen() -> None:
    settings = load_settings()
    with pytest.raises(ValidationError):
        settings.port = 1


def test_every_setting_is_described_with_its_unit() -> None:
    for name, field in Settings.model_fields.items():
        assert field.description, name
        assert field.description.endswith((".", ")")), name
        if field.annotation in {int, float}:
            assert isinstance(field.json_schema_extra, dict), name
            assert field.json_schema_extra["unit"], name
