"""A host's root, and a place for our own state."""

from __future__ import annotations

from pathlib import Path

import pytest

from control.host.files import HostFiles


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Of a host, empty."""
    root = tmp_path / "host"
    root.mkdir()
    return root


@pytest.fixture
def files(root: Path) -> HostFiles:
    """Of that host."""
    return HostFiles(str(root))


@pytest.fixture
def prefix(tmp_path: Path) -> str:
    """Of our own state, elsewhere."""
    return f"{tmp_path}/state/weft-"
