"""``weft detach`` and ``weft ps`` by name: of what is attached, running, stopped or gone."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from cni.netns import Netns
from control.cli import containers
from tests.cni.wires import make_bridge, new_netns
from tests.control.test_attach_cli import Daemon
from tests.control.test_containers import docker_at
from tests.native.namespace import in_new_netns


def attach(node: Daemon, ident: str, netns: Netns, address: str, label: str) -> None:
    path = f"/proc/{os.getpid()}/fd/{netns.fileno()}"
    body = {"netns": path, "addresses": [address], "label": label}
    with node.client() as client:
        made = client.post(f"/attach/{ident}", json=body)
        assert made.status_code == 200, made.text


@in_new_netns
@pytest.mark.timeout(120)
def test_names_of_what_is_attached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PODMAN_SOCKET", "DOCKER_SOCKET", "NAMED"):
        monkeypatch.setattr(containers, name, tmp_path / name.lower())
    monkeypatch.setattr(containers, "CRI_SOCKETS", ())
    monkeypatch.delenv(containers.CRI_VARIABLE, raising=False)
    docker = {"web": {"Id": "d0c4e4", "State": {"Pid": 0}}}
    make_bridge("weave")
    with (
        new_netns() as one,
        new_netns() as two,
        new_netns() as three,
        Daemon(tmp_path, "--ipalloc-range", "") as node,
    ):
        monkeypatch.setenv("PATH", str(tmp_path))  # no podman
        # a pod, its successor of the same name, and a container of Docker's that has stopped since
        attach(node, "a11", one, "10.2.1.1/24", "default/web")
        attach(node, "a22", two, "10.2.1.2/24", "default/web")
        attach(node, "d0c4e4", three, "10.2.1.3/24", "")
        assert [row.split()[0] for row in node.says("ps", "a").splitlines()] == ["a11", "a22"]
        assert node.says("ps", "nobody") == node.says("ps", "default/nobody") == ""
        assert node.says("detach", "nobody") == node.says("detach", "a1") == ""
        assert "not known here" in node.refuses("detach", "default/nobody")
        for command in ("detach", "ps"):
            assert "2 attachments" in node.refuses(command, "default/web")
            assert "2 attachments" in node.refuses(command, "web")
        for name in ("", "a/../b"):
            assert "container id" in node.refuses("detach", name)
        with docker_at(tmp_path / "docker_socket", docker):
            assert "not running" in node.refuses("attach", "web")
            (row,) = json.loads(node.says("ps", "--json", "web"))
            assert row["Container"] == "d0c4e4"
            node.says("detach", "--all", "web")
        node.says("detach", "--all", "a11")
        for name in ("web", "default/web"):
            (row,) = json.loads(node.says("ps", "--json", name))
            assert row["Container"] == "a22"
        node.says("detach", "--all", "web")
        assert node.says("ps", "web", "weave:expose").split()[0] == "weave:expose"
        assert node.says("audit") == "nothing is left over\n"
