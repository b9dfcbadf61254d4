"""Structured logs on standard output: one JSON object a line, one line a request, never prompt text, never keys.

The library's loggers (uvicorn, asyncio) go through the same renderer, so that a log collector meets one format.
"""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING, Literal

import msgspec
import structlog

if TYPE_CHECKING:
    from structlog.typing import Processor

_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}

_encoder = msgspec.json.Encoder(enc_hook=str)


def _serialize(event: object, **_options: object) -> bytes:
    return _encoder.encode(event)


def _serialize_text(event: object, **_options: object) -> str:
    return _serialize(event).decode()


def _for_people() -> Processor:
    # Not Rich's tracebacks, which show what variables hold: keys and prompts among them.
    return structlog.dev.ConsoleRenderer(colors=sys.stdout.isatty(), exception_formatter=structlog.dev.plain_traceback)


def configure_logs(level: Literal["debug", "info", "warning", "error"], form: Literal["json", "console"]) -> None:
    """Set up logging for this process: `json` for machines, `console` for people."""
    shared: list[Processor] = [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    if form == "json":
        structlog.configure(
            processors=[*shared, structlog.processors.JSONRenderer(serializer=_serialize)],
            wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[level]),
            logger_factory=structlog.BytesLoggerFactory(sys.stdout.buffer),
            cache_logger_on_first_use=True,
        )
        final: Processor = structlog.processors.JSONRenderer(serializer=_serialize_text)
    else:
        structlog.configure(
            processors=[*shared[:-1], _for_people()],
            wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[level]),
            logger_factory=structlog.PrintLoggerFactory(sys.stdout),
            cache_logger_on_first_use=True,
        )
        final = _for_people()
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, final],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    # Bad requests are answered and counted; a line each would let anybody fill the log.
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)
    # While Postgres is away its pool would tell so at every try; the gateway's own modules say it once.
    logging.getLogger("asyncpg").setLevel(logging.ERROR)
