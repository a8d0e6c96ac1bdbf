"""One node for the tests of a file; every test leaves it as it found it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.control.cni.runtime import Node, Pod, running

_counter = 0


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """The node itself."""
    if os.geteuid() != 0:
        pytest.skip("needs root for network namespaces")
    folder: Path = tmp_path_factory.mktemp("node")
    with running(folder) as node:
        yield node


@pytest.fixture
def node(shared: Node) -> Iterator[Node]:
    """The same, with nothing of this test left at its end."""
    yield shared
    for pod in shared.pods:
        pod.close()
    shared.pods.clear()
    try:
        shared.audit()
    except AssertionError:
        shared.reset()
        raise


@pytest.fixture
def pod(node: Node) -> Pod:
    """A container that no other test had."""
    global _counter
    _counter += 1
    return node.pod(f"container{_counter}")
