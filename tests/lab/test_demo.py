"""``weft demo`` as a user meets it. Needs root, but for its refusals."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

import pytest

from lab import demo
from lab.demo_run import follow, measure_pair
from lab.lab import Lab
from tests.lab.leftovers import environment, eventually, processes

DEMO = [sys.executable, "-m", "lab.demo"]

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--nodes", "1"], "weft demo: --nodes 1: a demo needs at least 2"),
        (["--nodes", "999"], "weft demo: --nodes 999: give a number from 1 to 200"),
        (["--topology", "star"], "weft demo: --topology star: give one of mesh, line, ring"),
        (["--seconds", "0"], "weft demo: --seconds 0: give at least 1"),
    ],
)
def test_wrong_options(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert demo.main(arguments) == 1
    assert capsys.readouterr() == ("", message + "\n")


def test_not_root(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    assert demo.main(["--json"]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err == ("weft demo: the lab makes network namespaces and needs root: run it with sudo\n")


@needs_root
def test_missing_tools(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert demo.main([]) == 1
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "apt-get install ethtool iperf3 iproute2 iputils-ping" in err


@needs_root
@pytest.mark.netns
def test_json() -> None:
    done = subprocess.run(
        [*DEMO, "--nodes", "2", "--topology", "line", "--json"],
        capture_output=True,
        text=True,
        check=False,
        env=environment("none"),
        timeout=50,
    )
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)  # and nothing else
    assert summary["nodes"] == 2
    assert summary["topology"] == "line"
    assert summary["encrypted"] is False
    assert summary["raw"]["ping_ms"] > 0
    assert summary["raw"]["tcp_gbps"] > 0
    assert [(pair["from"], pair["to"]) for pair in summary["pairs"]] == [("c1", "c2"), ("c2", "c1")]
    for pair in summary["pairs"]:
        assert pair["ok"] is True
        assert pair["mtu"] == 1438  # 1500 - 62 of overhead
        assert pair["ping_ms"] > 0
        assert pair["tcp_gbps"] > 0
        assert pair["udp_gbps"] > 0
    addresses = summary["addresses"]
    assert sum(share["ips"] for share in addresses["before"]) == 1 << 20
    assert [share["in_use"] for share in addresses["before"]] == [1, 1]
    (lost,) = (share["ips"] for share in addresses["before"] if share["node"] == "h2")
    assert (addresses["lost"], addresses["taken_over"]) == ("h2", lost)
    assert addresses["after"] == [{"node": "h1", "ips": 1 << 20, "percent": 100, "in_use": 1}]


@needs_root
@pytest.mark.netns
def test_encrypted() -> None:
    done = subprocess.run(
        [*DEMO, "--nodes", "3", "--topology", "ring", "--encrypted", "--json"],
        capture_output=True,
        text=True,
        check=False,
        env=environment("none"),
        timeout=55,
    )
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert summary["encrypted"] is True
    assert all(pair["ok"] and pair["mtu"] == 1414 for pair in summary["pairs"])
    # each node has its two neighbours of the ring, and none in clear
    assert len(summary["connections"]) == 6
    for connection in summary["connections"]:
        assert connection["cipher"] in ("aes-256-gcm", "secretbox")
        assert connection["state"] == "established"


@needs_root
@pytest.mark.netns
def test_tables() -> None:
    done = subprocess.run(
        [*DEMO, "--nodes", "2"],
        capture_output=True,
        text=True,
        check=False,
        env=environment("none"),
        timeout=50,
    )
    assert done.returncode == 0, done.stderr
    for expected in (
        *("raw veth", "underlay h1 → h2", "ce:02:00:00:00:02", "sent_datagrams"),
        *("10.32.0.0/12, divided by vote in", "h2 is killed; weft rmpeer h2 on h1: "),
    ):
        assert expected in done.stdout
    assert "c2 → c1" in done.stderr


@needs_root
@pytest.mark.netns
@pytest.mark.parametrize("delay_s", [0.05, 0.3, 0.6, 1.0, 2.5, 5.0])
def test_ctrl_c_leaves_nothing(delay_s: float) -> None:
    token = uuid.uuid4().hex
    process = subprocess.Popen(
        [*DEMO, "--nodes", "3"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(token),
        start_new_session=True,
    )
    try:
        time.sleep(delay_s)
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does
        begun = time.monotonic()
        out, err = process.communicate(timeout=20)
        # Before our code runs Python dies of the signal itself, which a shell shows as 130 too.
        assert process.returncode in (130, -signal.SIGINT)
        assert process.returncode == 130 or delay_s < 0.2
        assert time.monotonic() - begun < 5
        assert out == ""
        assert "Traceback" not in err or delay_s < 0.2
        assert eventually(lambda: not processes(token)), processes(token)
    finally:
        process.kill()
        process.communicate()


@needs_root
@pytest.mark.netns
@pytest.mark.anyio
async def test_a_frame_is_followed_over_every_hop() -> None:
    async with Lab(3, "line") as lab:
        await lab.start_weft()
        way = await follow(lab, lab.containers[0], lab.containers[2])
    assert [hop.place for hop in way] == [
        "leaves c1 by eth0",
        "underlay h1 → h2",
        "underlay h2 → h3",
        "reaches c3 by eth0",
    ]
    assert way[0].data == way[3].data
    for hop in way[1:3]:
        text = "\n".join(hop.lines)
        assert "ce:01:00:00:00:01(h1) → ce:03:00:00:00:03(h3): IPv4" in text
    assert "neighbour ce:02:00:00:00:02(h2)" in "\n".join(way[2].lines)


@needs_root
@pytest.mark.netns
@pytest.mark.anyio
async def test_a_pair_that_fails_is_told() -> None:
    errors: list[str] = []
    async with Lab(2) as lab:
        one, other = lab.vxlan_pair()
        lab.partition(*lab.hosts)
        result = await measure_pair(one, other, 1, print, errors)
    assert not result.ok
    assert result.tcp_gbps is None
    assert errors == ["vxlan1 → vxlan2: none of 40 pings was answered"]
