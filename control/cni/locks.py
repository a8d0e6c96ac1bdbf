"""One lock for each key in use, in order of arrival."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio


class KeyedLocks:
    """Calls for one key come one after the other, those for others beside them."""

    def __init__(self) -> None:
        self._held: dict[str, tuple[anyio.Lock, int]] = {}

    @asynccontextmanager
    async def hold(self, key: str) -> AsyncIterator[None]:
        """Have the key for the length of the block."""
        lock, users = self._held.get(key, (None, 0))
        if lock is None:
            lock = anyio.Lock()
        self._held[key] = (lock, users + 1)
        try:
            async with lock:
                yield
        finally:
            _, users = self._held[key]
            if users == 1:
                del self._held[key]
            else:
                self._held[key] = (lock, users - 1)
