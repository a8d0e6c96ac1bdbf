"""Write the seeds that come from ``tests/vectors``: ``python -m tests.fuzz.make_seeds``.

Seeds made by hand and inputs of bugs that were mended have other names and stay as they are.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from base import gob, ipc
from base.names import PeerName
from crypto.tcp import TcpSealer
from ipam import outside
from mesh.framing import frame
from mesh.peer import ConnectionRecord, Peer
from mesh.topology import encode_update
from tests.fuzz.core import NAMES, Op
from tests.fuzz.wire import FEATURES, KEY
from tests.golden import load

CORPUS: Final = Path(__file__).parent / "corpus"
PEERS_FILE: Final = """mtu = 1410
[[peer]]
name = "ce:01:00:00:00:01"
nickname = "host1"
address = "192.0.2.1:6783"
[[peer]]
name = "ce:02:00:00:00:02"
nickname = "host2"
address = "192.0.2.2"
[[link]]
between = ["host1", "ce:02:00:00:00:02"]
mtu = 8950
"""
SNAPSHOT: Final = ipc.Snapshot(
    1,
    NAMES[0].octets,
    "host1",
    (ipc.Peer(NAMES[1].octets, "host2"),),
    (ipc.Connection(NAMES[1].octets, "192.0.2.2", 6783, cipher="secretbox", key=KEY),),
    (ipc.UnicastRoute(NAMES[1].octets, NAMES[1].octets),),
    (ipc.BroadcastRoute(NAMES[0].octets, (NAMES[1].octets,)),),
)
ADDRESSES: Final = (
    *("host1", "host1:6783", "a:b:c", "10.0.0.1", "10.0.0.1:0"),
    *("[fe80::1%eth0]:80", "::1", "[::]"),
)
LINK_MESSAGES: Final = (
    SNAPSHOT,
    ipc.Delta(2, peers_gone=(NAMES[1].octets,)),
    ipc.ReportRequest(1),
    ipc.RouterHello(2, 1, 1),
    ipc.NeedSnapshot(1, 3),
    ipc.OverlayMessage(NAMES[1].octets, 1, 1, b"\0\1"),
    ipc.RouterReady("weave", "vethwe", 6783, 1410),
    ipc.RouterReport(1, 1.5, "two", "tap", 1410, 1, 0, {"rx_frames": 1}),
)


def write(target: str, name: str, data: bytes) -> None:
    """One seed."""
    folder = CORPUS / target
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(data)


def block(data: bytes) -> bytes:
    """As :meth:`tests.fuzz.source.Source.block` reads it."""
    return len(data).to_bytes(2, "big") + data


def update_of(count: int) -> bytes:
    """An update in which everybody is connected to everybody."""
    peers = []
    for number, name in enumerate(NAMES[:count]):
        peer = Peer(name, f"host{number}", number + 1, 3, number)
        ends = [other for other in NAMES[:count] if other != name]
        peer.set_connections(
            {end: ConnectionRecord(end, "10.0.0.1:6783", True, True) for end in ends}
        )
        peers.append(peer)
    return encode_update(peers)


def from_vectors() -> None:
    """Bytes of the real program."""
    for index, item in enumerate(load("gob_basics")["composites"]):
        write("gob", f"weave_composite_{index}", bytes.fromhex(item["stream"]))
    for index, item in enumerate(load("gob_basics")["scalars"][::8]):
        write("gob", f"weave_scalar_{index}", bytes.fromhex(item["stream"]))
    for index, item in enumerate(load("gossip_envelope")["vectors"]):
        write("envelope", f"weave_{index}", bytes.fromhex(item["bytes_after_tag"])[:4096])
    topology = load("topology_gossip")
    for index, item in enumerate([*topology["vectors"], *topology["decode_errors"]]):
        update = bytes.fromhex(item["bytes"])
        if len(update) <= 4096:
            write("update", f"weave_{index}", update)
            write("gob", f"weave_update_{index}", update)
    for index, item in enumerate(load("tcp_framing")["plain"]):
        write("frames", f"weave_{index}", bytes.fromhex(item["wire"])[:400])
    for session in load("handshake")["sessions"]:
        for outbound, side in enumerate(("outbound", "inbound")):
            stream = b"".join(map(bytes.fromhex, session["intro_writes"][side]))
            encrypted = bool(
                session[f"{'inbound' if outbound == 0 else 'outbound'}_side"]["password"]
            )
            write(
                "intro",
                f"weave_{session['name']}_{side}",
                bytes((outbound | 2 * encrypted,)) + stream,
            )
            _features_seed(session, side)
    ipam = load("ipam_gossip")
    for item in ipam["gossip"]:
        state = bytes.fromhex(item["bytes"])
        write("ipam_state", f"weave_{item['name']}", state)
        write("ipam_peer", f"weave_{item['name']}", b"\2" + block(state) + b"\1" + block(state))
    for index, item in enumerate(ipam["unicast"]):
        write("ipam_peer", f"weave_unicast_{index}", b"\0" + block(bytes.fromhex(item["payload"])))
    lists = [
        outside.encode(outside.Listed(7, number, frozenset({0x0A090001}))) for number in (1, 2)
    ]
    write("ipam_peer", "outside_lists", b"".join(b"\3" + block(one) for one in lists))
    for index, item in enumerate(load("peer_names")["peer_name_strings"]):
        write("names", f"weave_{index}", item["input"].encode())


def _features_seed(session: dict[str, object], side: str) -> None:
    found = session[f"{side}_side"]
    assert isinstance(found, dict)
    pairs = found.get("features_sent") or {}
    text = "\0".join(part for pair in pairs.items() for part in pair)
    if text:
        write("features", f"weave_{session['name']}_{side}", text.encode())


def scripts() -> None:
    """Lives of a core: neighbours, gossip, time, ends; plain, encrypted, with strangers."""
    accept = [bytes((Op.ACCEPT, 1, name, kind)) + b"\1" for name, kind in ((1, 4), (2, 5), (3, 2))]
    gossip = bytes((Op.GOSSIP, 0, 0, 0, 1, 0)) + block(update_of(4))
    ipam = bytes((Op.GOSSIP, 1, 2, 1, 2, 0)) + block(b"claims")
    unicast = bytes((Op.GOSSIP, 0, 1, 1, 1, 2)) + block(b"to the next")
    overlay = bytes((Op.MESSAGE, 0)) + block(b"\x07\0\1")
    older = bytes((Op.MESSAGE, 1)) + block(b"\x01")
    up = bytes((Op.ESTABLISH, 0, Op.ESTABLISH, 1))
    time = bytes((Op.TIME, 20))
    life = b"".join([*accept, gossip, up, time, ipam, unicast, overlay, older, time])
    for name, options in (("plain", 0), ("encrypted", 1), ("limit", 4), ("trusted", 3)):
        write("core", f"life_{name}", bytes((options,)) + life)
    write("core", "twins", b"\0" + accept[0] + accept[0] + bytes((Op.ACCEPT, 2, 0, 0, 1)) + time)
    header = bytes((Op.STRANGER, 1, Op.RAW, 0)) + block(b"weave\x02\x02\0")
    write("core", "stranger", b"\0" + header + bytes((Op.RAW, 0)) + block(frame(b"\1\2\3")) + time)
    plain_header = bytes((Op.STRANGER, 1, Op.RAW, 0)) + block(b"weave\x02\x02\0" + b"\0")
    write("core", "refused", b"\1" + plain_header + time)
    write("core", "silence", b"\0" + accept[0] + accept[1] + bytes((Op.TIME, 255)))
    write("core", "dial", b"\0" + bytes((Op.DIAL, 1, 1, 4, 1, Op.ESTABLISH, 0)) + gossip + time)
    write("core", "end", b"\1" + accept[0] + accept[1] + gossip + up + bytes((Op.END, 0)) + time)


def own() -> None:
    """What no vector has."""
    for message in LINK_MESSAGES:
        body = ipc.encode(message)
        write("control_link", type(message).__name__.lower(), body)
        write("control_link", f"{type(message).__name__.lower()}_body", body[4:])
    write("control_link", "two", ipc.encode(SNAPSHOT) + ipc.encode(LINK_MESSAGES[1]))
    write("datagram", "short", FEATURES.name.octets + bytes(24))
    write("datagram", "records", FEATURES.name.octets + bytes(200))
    write("tcp", "box", TcpSealer(KEY, outbound=True).seal(b"message"))
    write("tcp", "short", b"123")
    write("update", "mesh", update_of(4))
    features = gob.string_map_stream(FEATURES.to_map())
    write("intro", "sealed", b"\x06" + features)
    write("intro", "sealed_dialled", b"\x07" + features)
    for index, text in enumerate(
        (
            "host1",
            "host1:6783",
            "[fe80::1%eth0]:80",
            "::1",
            "10.0.0.1:0",
            "10.0.0.1",
            "[::]",
            "a:b:c",
        )
    ):
        write("names", f"address_{index}", text.encode())
    write("names", "peer", str(PeerName.from_int(0xCE0100000001)).encode())
    write("peers_file", "two", PEERS_FILE.encode())
    write("peers_file", "mesh", PEERS_FILE.partition("[[link]]")[0].encode())
    write("peers_file", "clash", (PEERS_FILE + PEERS_FILE[PEERS_FILE.index("[") :]).encode())
    write("password", "line", b"correct horse battery staple\n")
    write("password", "two_lines", b"correct horse\nbattery staple\n")
    write("password", "empty", b"")


if __name__ == "__main__":
    from_vectors()
    scripts()
    own()
