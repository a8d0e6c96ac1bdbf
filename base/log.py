"""Logging set-up for both processes: constant message plus fields, on standard error.

``log.info("connection established", extra=kv(peer=name, pmtu_bytes=1500))`` prints

    2026-03-01T12:00:00.123Z INFO  control.link connection established peer=... pmtu_bytes=1500

or the same as one JSON object a line. Repeats of one message are rate-limited and counted: the
next line that passes carries ``suppressed=n``. Secrets are never passed as fields; nothing here
filters them.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from typing import Any, Final, TextIO

from base.clock import Clock, MonotonicClock

LEVELS: Final = ("debug", "info", "warning", "error")
FORMATS: Final = ("kv", "json")
#: Libraries whose debug records dump every message they see.
_CHATTERING: Final = ("pyroute2", "asyncio", "httpcore")

_FIELDS: Final = "weft_fields"


def kv(**fields: object) -> dict[str, Any]:
    """Fields of one log call, for its ``extra=``. None values are left out."""
    return {_FIELDS: {key: value for key, value in fields.items() if value is not None}}


def _fields_of(record: logging.LogRecord) -> dict[str, object]:
    fields: dict[str, object] = dict(getattr(record, _FIELDS, {}))
    suppressed = getattr(record, "weft_suppressed", 0)
    if suppressed:
        fields["suppressed"] = suppressed
    return fields


def _timestamp(record: logging.LogRecord) -> str:
    whole = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
    return f"{whole}.{int(record.msecs):03d}Z"


def _quoted(value: object) -> str:
    text = str(value)
    if text and text.isprintable() and not any(char in ' "=' for char in text):
        return text
    return json.dumps(text)


class KeyValueFormatter(logging.Formatter):
    """One line per record: time, level, logger, message, ``key=value`` pairs."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as one line; a traceback, if any, follows on its own lines."""
        parts = [_timestamp(record), f"{record.levelname:<7}", record.name, record.getMessage()]
        parts += [f"{key}={_quoted(value)}" for key, value in _fields_of(record).items()]
        line = " ".join(parts)
        if record.exc_info:
            line += "\n" + self.formatException(record.exc_info)
        return line


class JsonFormatter(logging.Formatter):
    """One JSON object per record; fields stand beside ``time level logger message``."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as one line of JSON."""
        entry: dict[str, object] = {
            "time": _timestamp(record),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        for key, value in _fields_of(record).items():
            entry[key] = value if isinstance(value, (bool, int, float)) else str(value)
        if record.exc_info:
            entry["traceback"] = self.formatException(record.exc_info)
        return json.dumps(entry, ensure_ascii=False)


#: For the ``extra=`` of records whose number is bounded otherwise: none of them is suppressed.
UNLIMITED: Final = {"weft_unlimited": True}


class RateLimiter(logging.Filter):
    """Lets ``burst`` records of one (logger, level, message) pass per ``interval_s``.

    The rest is counted; the count rides on the next record that passes. Memory is bounded by the
    number of distinct constant messages in the program.
    """

    def __init__(
        self, burst: int = 10, interval_s: float = 10.0, clock: Clock | None = None
    ) -> None:
        super().__init__()
        self._burst = burst
        self._interval_s = interval_s
        self._clock: Clock = clock or MonotonicClock()
        self._windows: dict[tuple[str, int, str], list[float]] = {}  # start_s, passed, suppressed

    def filter(self, record: logging.LogRecord) -> bool:
        """True when the record may be written."""
        if getattr(record, "weft_unlimited", False):
            return True
        now = self._clock.now()
        key = (record.name, record.levelno, str(record.msg))
        window = self._windows.setdefault(key, [now, 0, 0])
        if now - window[0] >= self._interval_s:
            window[0], window[1] = now, 0
        if window[1] >= self._burst:
            window[2] += 1
            return False
        window[1] += 1
        if window[2]:
            record.weft_suppressed = int(window[2])
            window[2] = 0
        return True


def setup(level: str = "info", style: str = "kv", stream: TextIO | None = None) -> None:
    """Send every logger's records to ``stream`` (default: standard error); replaces earlier set-up.

    Raises:
        ValueError: unknown level or style.
    """
    if level not in LEVELS:
        raise ValueError(f"{level!r} is not one of {', '.join(LEVELS)}")
    if style not in FORMATS:
        raise ValueError(f"{style!r} is not one of {', '.join(FORMATS)}")
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(KeyValueFormatter() if style == "kv" else JsonFormatter())
    handler.addFilter(RateLimiter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for name in _CHATTERING:
        logging.getLogger(name).setLevel(max(root.level, logging.INFO))
