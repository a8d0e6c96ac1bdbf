"""What may not happen while a program is imported, and may again afterwards."""

from __future__ import annotations

import gc
import signal

import pytest

from base.importing import importing


def _interrupted(done: list[str]) -> None:
    with importing():
        signal.raise_signal(signal.SIGINT)
        done.append("imported")


def _failing() -> None:
    with importing():
        assert not gc.isenabled()
        raise ImportError


def test_ctrl_c_waits_until_everything_is_there() -> None:
    done: list[str] = []
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            _interrupted(done)
    finally:
        signal.signal(signal.SIGINT, before)
    assert done == ["imported"]


def test_all_is_as_before_when_it_fails() -> None:
    with pytest.raises(ImportError):
        _failing()
    assert gc.isenabled()
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, ())
    gc.unfreeze()
