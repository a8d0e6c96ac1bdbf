"""Control as a real process, with a router on a real socket."""

from __future__ import annotations

import json
import signal
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from base.ipc import (
    Connection,
    Delta,
    NeedSnapshot,
    PathMtuChanged,
    Peer,
    ReportRequest,
    Snapshot,
    UnicastRoute,
)
from tests.control.fake_router import READY, FakeRouter, report
from tests.control.processes import PEER_3, PEERS, Control, until, weft

HOST1, HOST2, HOST3 = (bytes.fromhex(f"ce0{n}0000000{n}") for n in (1, 2, 3))


@pytest.fixture
def control(tmp_path: Path) -> Iterator[Control]:
    with Control(tmp_path) as process:
        process.until_told("READY=1")
        yield process


def test_snapshot_then_delta_on_sighup(control: Control) -> None:
    with FakeRouter(control.link) as router:
        first = router.receive()
        assert isinstance(first, Snapshot)
        assert (first.seq, first.name, first.nick) == (1, HOST1, "host1")
        assert first.peers == (Peer(HOST2, "host2"),)
        (connection,) = first.connections
        assert (connection.peer, connection.addr, connection.port) == (HOST2, "10.0.0.2", 6783)
        assert first.unicast == (UnicastRoute(HOST2, HOST2),)
        control.peers.write_text(PEERS + PEER_3)
        control.signal(signal.SIGHUP)
        delta = router.receive()
        assert isinstance(delta, Delta)
        assert delta.seq == 2
        assert delta.peers == (Peer(HOST3, "host3"),)
        assert [(each.peer, each.port) for each in delta.connections] == [(HOST3, 7000)]
        assert delta.unicast == (UnicastRoute(HOST2, HOST2), UnicastRoute(HOST3, HOST3))
        control.peers.write_text(PEERS)
        control.signal(signal.SIGHUP)
        back = router.receive()
        assert isinstance(back, Delta)
        assert (back.seq, back.peers_gone, back.connections_gone) == (3, (HOST3,), (HOST3,))
        router.send(NeedSnapshot(have=1, got=3))
        again = router.receive()
        assert isinstance(again, Snapshot)
        assert again == Snapshot(
            3, *(getattr(first, key) for key in Snapshot.__struct_fields__[1:])
        )
    control.until_told("READY=1", times=3)
    assert control.told("RELOADING=1") == 2


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("[[peer]\n", "peers.toml:1: not valid TOML"),
        (PEERS + PEER_3.replace("10.0.0.3:7000", "fe80::3"), "peers.toml:14: address"),
        (PEERS.replace("ce:01", "ce:09"), "has no peer ce:01:00:00:00:01"),
    ],
)
def test_a_bad_file_on_sighup_keeps_the_old_table(
    control: Control, text: str, complaint: str
) -> None:
    with FakeRouter(control.link) as router:
        assert isinstance(router.receive(), Snapshot)
        control.peers.write_text(text)
        control.signal(signal.SIGHUP)
        control.until_told("READY=1", times=2)
        errors = [line for line in control.stderr.splitlines() if " ERROR " in line]
        assert len(errors) == 1
        assert complaint in errors[0]
        router.send(NeedSnapshot(0, 9))
        kept = router.receive()
        assert isinstance(kept, Snapshot)
        assert (kept.seq, kept.peers) == (1, (Peer(HOST2, "host2"),))


def test_an_unchanged_file_sends_nothing(control: Control) -> None:
    with FakeRouter(control.link) as router:
        assert isinstance(router.receive(), Snapshot)
        control.signal(signal.SIGHUP)
        control.until_told("READY=1", times=2)
        router.send(NeedSnapshot(0, 9))
        answer = router.receive()
        assert isinstance(answer, Snapshot)
        assert answer.seq == 1


def test_status_follows_the_router(control: Control) -> None:
    assert control.get("/status").status_code == 503
    assert "not running" in control.get("/status").text
    with FakeRouter(control.link) as router:
        assert isinstance(router.receive(), Snapshot)
        router.send(READY)
        control.until_told("X_WEFT_ROUTER=ready")
        answers = threading.Thread(target=_answer_one, args=(router,))
        answers.start()
        status = control.get("/status")
        answers.join()
        assert status.status_code == 200
        assert "           Name: ce:01:00:00:00:01(host1)\n" in status.text
        assert "    Connections: 1 (1 established)\n" in status.text
    control.until_told("X_WEFT_ROUTER=gone")
    assert control.get("/status").status_code == 503
    assert control.stderr.count("router ready") == 1
    assert control.stderr.count("router gone") == 1


def _answer_one(router: FakeRouter) -> None:
    message = router.receive()
    assert isinstance(message, ReportRequest)
    router.send(report(message.id))


def test_report(control: Control) -> None:
    with FakeRouter(control.link) as router:
        assert isinstance(router.receive(), Snapshot)
        router.send(READY)
        control.until_told("X_WEFT_ROUTER=ready")
        answers = threading.Thread(target=_answer_one, args=(router,))
        answers.start()
        answer = control.get("/report", accept="application/json")
        answers.join()
    assert answer.headers["content-type"] == "application/json"
    assert answer.text.startswith('{\n    "Ready": true,\n')
    body = answer.json()
    assert body["Counters"]["captured_frames"] == 15
    assert body["Forwarders"][0]["RxDatagrams"] == 6
    assert body["Router"]["MACs"][0]["Mac"] == "62:66:3f:b7:2e:c1"
    assert body["Pids"]["Control"] == control.pid
    assert control.get("/report").status_code == 400
    assert control.get("/nothing").text == "404 page not found\n"


def test_a_router_that_does_not_answer_costs_two_seconds_not_the_api(control: Control) -> None:
    with FakeRouter(control.link) as router:
        assert isinstance(router.receive(), Snapshot)
        router.send(READY)
        router.send(PathMtuChanged(HOST2, 1300, 1400))
        control.until_told("X_WEFT_ROUTER=ready")
        body = control.get("/report", accept="application/json").json()
        assert body["Counters"] == {}
        assert body["Router"]["Connections"][0]["Attrs"]["mtu"] == 1300
        assert body["Router"]["Connections"][0]["State"] == "pending"


def test_a_new_router_replaces_the_old_one(control: Control) -> None:
    with FakeRouter(control.link) as old:
        assert isinstance(old.receive(), Snapshot)
        with FakeRouter(control.link) as new:
            assert isinstance(new.receive(), Snapshot)
            assert old.receive() is None
            control.peers.write_text(PEERS + PEER_3)
            control.signal(signal.SIGHUP)
            assert isinstance(new.receive(), Delta)


def test_what_is_no_router_is_turned_away(control: Control) -> None:
    with FakeRouter(control.link) as good:
        assert isinstance(good.receive(), Snapshot)
        with FakeRouter(control.link, schema=99) as other_release:
            assert other_release.receive() is None
        assert "install the same release for both" in control.stderr
        for garbage in (b"\xff" * 64, b"\0\0\0\x03abc", b"GET / HTTP/1.0\r\n\r\n"):
            with FakeRouter(control.link, hello=False) as stranger:
                stranger.socket.sendall(garbage)
                assert stranger.receive() is None
        with FakeRouter(control.link, hello=False) as impatient:
            impatient.send(READY)
            assert impatient.receive() is None
        good.send(NeedSnapshot(0, 0))
        assert isinstance(good.receive(), Snapshot), "the good one did not notice"


def test_kill_minus_nine_and_back(tmp_path: Path) -> None:
    with Control(tmp_path) as first:
        first.until_told("READY=1")
        router = FakeRouter(first.link)
        assert isinstance(router.receive(), Snapshot)
        first.signal(signal.SIGKILL)
        first.wait()
        assert router.receive() is None
        router.close()
        assert first.link.is_socket(), "a killed process leaves its socket file"
    with Control(tmp_path) as second:
        second.until_told("READY=1")
        with FakeRouter(second.link) as router:
            snapshot = router.receive()
            assert isinstance(snapshot, Snapshot)
            assert isinstance(snapshot.connections[0], Connection)


def test_stop_removes_the_sockets_and_modes_are_tight(control: Control) -> None:
    assert stat.S_IMODE(control.link.stat().st_mode) == 0o600
    assert stat.S_IMODE(control.api.stat().st_mode) == 0o660
    with FakeRouter(control.link) as router:
        assert isinstance(router.receive(), Snapshot)
        control.signal(signal.SIGTERM)
        assert control.wait() == 0
        assert router.receive() is None
    assert not control.link.exists()
    assert not control.api.exists()
    assert control.stderr == "", "nothing to say before a router was ever ready"


def test_a_second_control_is_told_so(control: Control, tmp_path: Path) -> None:
    done = weft(
        *("control", "--static", str(control.peers), "--nickname", "host1"),
        *("--control-socket", str(control.link), "--http-addr", str(tmp_path / "other.sock")),
    )
    assert done.returncode == 1
    assert done.stderr == (
        f"weft: --control-socket: control is already running on {control.link}; "
        "stop it first or name another path\n"
    )
    with FakeRouter(control.link) as router:
        assert isinstance(router.receive(), Snapshot), "the first one still serves"


def test_command_line_against_a_node(control: Control) -> None:
    status = weft("status", "--http-addr", str(control.api))
    assert status.returncode == 1
    assert status.stdout.startswith("\n        Version: ")
    with FakeRouter(control.link) as router:
        assert isinstance(router.receive(), Snapshot)
        router.send(READY)
        control.until_told("X_WEFT_ROUTER=ready")
        answers = threading.Thread(target=_answer_one, args=(router,))
        answers.start()
        raw = weft("report", "--json", "--http-addr", str(control.api))
        answers.join()
    assert raw.returncode == 0, raw.stderr
    assert raw.stdout.startswith("{\n    ")
    assert json.loads(raw.stdout)["Counters"]["captured_frames"]
    control.signal(signal.SIGKILL)
    control.wait()
    dead = weft("status", "--http-addr", str(control.api))
    assert dead.returncode == 2
    assert dead.stderr.count("\n") == 1
    assert "is not running; run 'weft launch'" in dead.stderr


def test_api_over_tcp_and_no_api(tmp_path: Path) -> None:
    with Control(tmp_path, "--http-addr", "127.0.0.1:0") as refused:
        assert refused.wait() == 1
        assert refused.stderr.startswith("weft: --http-addr: ")
    with Control(tmp_path, "--http-addr", "") as silent:
        silent.until_told("READY=1")
        assert not silent.api.exists()


def test_no_wake_ups_while_nothing_happens(control: Control) -> None:
    with FakeRouter(control.link) as router:
        assert isinstance(router.receive(), Snapshot)
        router.send(READY)
        control.until_told("X_WEFT_ROUTER=ready")

        def switches() -> int:
            text = Path(f"/proc/{control.pid}/status").read_text()
            (line,) = (row for row in text.splitlines() if row.startswith("voluntary_ctxt"))
            return int(line.split()[1])

        threading.Event().wait(0.5)
        before = switches()
        threading.Event().wait(2)
        assert switches() - before <= 2


def test_a_router_that_stops_reading_is_cut_off(control: Control) -> None:
    many = "".join(
        f'[[peer]]\nname = "ce:ff::{n // 250:x}:{n % 250:x}"\n'
        f'address = "10.1.{n // 250}.{n % 250}"\n'
        for n in range(1, 1500)
    )
    control.peers.write_text(PEERS + many)
    control.signal(signal.SIGHUP)
    control.until_told("READY=1", times=2)
    with FakeRouter(control.link) as router:
        for _ in range(600):
            try:
                router.send(NeedSnapshot(0, 0))
            except OSError:
                break
        until(lambda: "does not read what it is sent" in control.stderr, "cut off", 30)
    with FakeRouter(control.link) as fresh:
        assert isinstance(fresh.receive(), Snapshot)
