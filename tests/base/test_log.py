"""Log lines: fields, quoting, JSON, rate limit."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator

import pytest

from base.clock import FakeClock
from base.log import UNLIMITED, RateLimiter, kv, setup


@pytest.fixture(autouse=True)
def _restore_root_logger() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


def test_key_value_line() -> None:
    out = io.StringIO()
    setup("info", "kv", out)
    logging.getLogger("control.link").info(
        "router ready",
        extra=kv(peer="a(b)", reason="two words", err='say "hi"', gone=None, mtu=1410),
    )
    line = out.getvalue()
    assert line.endswith(
        "Z INFO    control.link router ready peer=a(b) "
        'reason="two words" err="say \\"hi\\"" mtu=1410\n'
    )
    assert "gone" not in line


def test_a_value_cannot_forge_a_line() -> None:
    out = io.StringIO()
    setup("info", "kv", out)
    logging.getLogger("x").info("message", extra=kv(nick="a\n2026 ERROR fake"))
    assert out.getvalue().count("\n") == 1


def test_json_line() -> None:
    out = io.StringIO()
    setup("debug", "json", out)
    logging.getLogger("x").debug("message", extra=kv(mtu=1410, ok=True, peer=object))
    entry = json.loads(out.getvalue())
    assert entry["level"] == "DEBUG"
    assert entry["logger"] == "x"
    assert entry["message"] == "message"
    assert entry["mtu"] == 1410
    assert entry["ok"] is True
    assert isinstance(entry["peer"], str)


def test_level_is_kept() -> None:
    out = io.StringIO()
    setup("warning", "kv", out)
    logging.getLogger("x").info("quiet")
    assert out.getvalue() == ""


def test_unknown_level_or_style() -> None:
    with pytest.raises(ValueError, match="loud"):
        setup("loud")
    with pytest.raises(ValueError, match="xml"):
        setup("info", "xml")


def test_repeats_are_limited_and_counted() -> None:
    clock = FakeClock()
    limiter = RateLimiter(burst=2, interval_s=10, clock=clock)

    def record(text: str = "again") -> logging.LogRecord:
        return logging.LogRecord("x", logging.INFO, "", 0, text, None, None)

    assert [limiter.filter(record()) for _ in range(5)] == [True, True, False, False, False]
    assert limiter.filter(record("another message"))
    clock.advance(10)
    passing = record()
    assert limiter.filter(passing)
    assert vars(passing)["weft_suppressed"] == 3
    following = record()
    assert limiter.filter(following)
    assert not hasattr(following, "weft_suppressed")


def test_fake_clock_never_goes_back() -> None:
    clock = FakeClock(5.0)
    clock.advance(1.5)
    assert clock.now() == 6.5
    with pytest.raises(ValueError):
        clock.advance(-1)


def test_records_that_are_bounded_otherwise_all_pass() -> None:
    out = io.StringIO()
    setup("info", "kv", out)
    for number in range(100):
        logging.getLogger("x").info("one of many", extra=UNLIMITED | kv(number=number))
    assert out.getvalue().count("\n") == 100
