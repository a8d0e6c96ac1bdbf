"""Imports that take long: quicker, and never interrupted half-way."""

from __future__ import annotations

import gc
import signal
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def importing() -> Iterator[None]:
    """For the imports of a whole program, on its main thread.

    SIGINT waits: a C module that is interrupted while it is made may swallow that, and crash once
    it is used. What is made here stays, so the garbage collector does not look at it, now or later.
    """
    collecting = gc.isenabled()
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if collecting:
            gc.enable()
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
