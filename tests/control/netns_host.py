"""Async tests on a real kernel: a network namespace of its own for each, and helpers in it."""

from __future__ import annotations

import functools
import json
import subprocess
from collections.abc import Awaitable, Callable
from typing import Any

import anyio

from tests.native.namespace import in_new_netns

#: Generous: a loaded machine is no failure.
PATIENCE_S = 20.0


def in_netns(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    """Run an async test on a loop of its own inside a fresh network namespace."""

    @in_new_netns
    @functools.wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        # the loop that control runs on
        anyio.run(functools.partial(test, *args, **kwargs), backend_options={"use_uvloop": True})

    # pytest must not take it for a coroutine function
    del run.__wrapped__  # type: ignore[attr-defined]
    return run


def sh(command: str) -> str:
    """Output of a command in the calling thread's namespace; it has to succeed."""
    done = subprocess.run(
        ["/bin/sh", "-ec", command], capture_output=True, text=True, check=False, timeout=30
    )
    assert done.returncode == 0, f"{command}: {done.stderr}{done.stdout}"
    return done.stdout


def ruleset() -> str:
    """All of nftables as text."""
    return sh("nft list ruleset")


def rule_comments(family: str, table: str) -> list[str]:
    """Comments of a table's rules."""
    objects = json.loads(sh(f"nft -j list table {family} {table}"))["nftables"]
    return [each["rule"].get("comment", "") for each in objects if "rule" in each]


async def until(condition: Callable[[], bool], what: str) -> None:
    """Wait until something is so."""
    with anyio.move_on_after(PATIENCE_S):
        while not condition():  # noqa: ASYNC110
            await anyio.sleep(0.02)
        return
    raise AssertionError(f"in vain: {what}")
