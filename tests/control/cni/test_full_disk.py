"""A disk that is full: code 5 for ADD, 11 for a DEL that cannot even be written down."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.control.cni.runtime import Node, running

pytestmark = pytest.mark.netns


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A folder of two megabytes."""
    folder = tmp_path / "disk"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "weft-test", folder], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


def fill(folder: Path) -> Path:
    """Take what is left."""
    path = folder / "filler"
    with path.open("wb", buffering=0) as file:
        try:
            while file.write(b"\0" * 4096):
                pass
        except OSError:
            os.fsync(file.fileno())
    return path


def test_full_disk(small: Path) -> None:
    with running(small) as node:
        _add_and_remove(node, small)


def _add_and_remove(node: Node, disk: Path) -> None:
    first, second = node.pod("first"), node.pod("second")
    node.call("ADD", None, first).result  # noqa: B018
    filler = fill(disk)
    assert node.call("ADD", None, second).code == 5
    assert second.links() == {"lo"}
    outcome = node.call("DEL", None, first)
    if outcome.status:  # the log of the state file may have had room left
        assert outcome.code == 11
        assert "cannot be written down" in outcome.error["details"]
    filler.unlink()
    node.call("DEL", None, first).nothing()
    node.call("DEL", None, second).nothing()
    node.audit()
