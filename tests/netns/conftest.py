"""Programs for the tests of running systems, compiled once per run; encrypted networks."""

from __future__ import annotations

import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from lab.lab import Lab
from tests.netns.support import BENCH_TOOLS, CIPHERS, PASSWORD, TOOLS

_CC = ("cc", "-D_GNU_SOURCE", "-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror")


@pytest.fixture(scope="session")
def stream_tool(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """TCP and UDP whose every byte is checked at arrival: tools/stream.c."""
    binary = tmp_path_factory.mktemp("tools") / "stream"
    subprocess.run([*_CC, "-o", str(binary), str(TOOLS / "stream.c")], check=True)
    return binary


@pytest.fixture(scope="session")
def hostile_tool(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What an ill-meaning host sends: bench/tools/hostile_blast.c."""
    binary = tmp_path_factory.mktemp("tools") / "hostile_blast"
    subprocess.run([*_CC, "-o", str(binary), str(BENCH_TOOLS / "hostile_blast.c")], check=True)
    return binary


@pytest.fixture(params=CIPHERS)
async def sealed_lab(request: pytest.FixtureRequest) -> AsyncIterator[Lab]:
    """Two hosts that are connected with each cipher in turn."""
    async with Lab(2) as built:
        await built.start_weft(password=PASSWORD, cipher=request.param)
        for host in built.hosts:
            await host.wait_established(1)
            assert (await host.connections())[0]["Cipher"] == request.param
        yield built
