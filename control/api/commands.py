"""What a user may change through the API."""

from __future__ import annotations

from typing import Protocol


class Commands(Protocol):
    """Changes to a node; made durable before they return."""

    async def connect(self, peers: list[str], *, replace: bool) -> list[str]:
        """Keep connected to ``peers`` (``host[:port]``), with ``replace`` to no others.

        Sentences about those that were refused; the others are taken.
        """

    async def forget(self, peers: list[str]) -> None:
        """Stop connecting to these; connections stay.

        Raises:
            ConfigError: that could not be remembered.
        """
