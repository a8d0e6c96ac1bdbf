"""Every counter of the data path: exported name, in the C header's order, and what it counts.

A test keeps this list equal to ``native/include/weft_counters.h``. Names that begin with ``drop_``
are reasons for which a frame or datagram was thrown away.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final, Self


class Counter(StrEnum):
    """One counter; its value is the exported name, ``meaning`` one line for people."""

    meaning: str

    def __new__(cls, value: str, meaning: str) -> Self:  # noqa: D102
        member = str.__new__(cls, value)
        member._value_ = value
        member.meaning = meaning
        return member

    CAPTURED_FRAMES = "captured_frames", "frames read from the bridge port (a super-frame is one)"
    CAPTURED_BYTES = "captured_bytes", "bytes of these frames"
    DELIVERED_FRAMES = (
        "delivered_frames",
        "frames written to the bridge port (those joined into a super-frame each count)",
    )
    DELIVERED_BYTES = "delivered_bytes", "bytes of these frames"
    SENT_DATAGRAMS = "sent_datagrams", "datagrams handed to the kernel for other peers"
    SENT_FRAMES = "sent_frames", "frames inside these datagrams"
    SENT_BYTES = "sent_bytes", "UDP payload bytes of these datagrams"
    RECEIVED_DATAGRAMS = "received_datagrams", "datagrams that arrived on the sleeve port"
    RECEIVED_FRAMES = "received_frames", "frames found in datagrams of known peers"
    RECEIVED_BYTES = "received_bytes", "UDP payload bytes that arrived"
    RELAYED_FRAMES = "relayed_frames", "received frames passed on to another peer"
    FLOODED_FRAMES = "flooded_frames", "copies made for broadcast, multicast and unknown unicast"
    FRAGMENTED_FRAMES = "fragmented_frames", "IPv4 frames cut into fragments by this router"
    COALESCED_FRAMES = "coalesced_frames", "received frames joined into super-frames"
    TOO_BIG_ANSWERS = "too_big_answers", "ICMP and ICMPv6 too-big messages sent to containers"
    SPECIAL_FRAMES = "special_frames", "heartbeats, fragmentation tests and PMTU probes received"
    FDB_LEARNED = "fdb_learned", "MAC addresses learned for the first time"
    FDB_MOVED = "fdb_moved", "MAC addresses that moved to another peer"
    FDB_FULL = "fdb_full", "MAC addresses not learned because the table was full"
    FDB_EXPIRED = "fdb_expired", "MAC addresses forgotten after their lifetime"
    DROP_SHORT_FRAME = "drop_short_frame", "captured or received frame without an Ethernet header"
    DROP_REMOTE_SOURCE = (
        "drop_remote_source",
        "captured frame whose source MAC lives at another peer: our own injection coming back",
    )
    DROP_STP = "drop_stp", "frame to 01:80:c2:00:00:00 (spanning tree), which stays local"
    DROP_LOCAL_DESTINATION = "drop_local_destination", "captured frame for a MAC on our own bridge"
    DROP_NO_ROUTE = "drop_no_route", "no unicast route to the peer that owns the destination"
    DROP_NO_ADDRESS = "drop_no_address", "the next hop has no known underlay address"
    DROP_TOO_BIG = "drop_too_big", "frame with DF above the path's MTU (its sender was told)"
    DROP_TOO_BIG_FLOODED = "drop_too_big_flooded", "flooded frame with DF above one path's MTU"
    DROP_FRAME_TOO_LONG = "drop_frame_too_long", "frame that no datagram can carry"
    DROP_BAD_OFFLOAD = "drop_bad_offload", "captured frame with a nonsensical offload header"
    DROP_BAD_FRAGMENT = "drop_bad_fragment", "frame that had to be fragmented and could not be"
    DROP_SHORT_DATAGRAM = "drop_short_datagram", "datagram too short for a sender's name"
    DROP_UNKNOWN_SENDER = (
        "drop_unknown_sender",
        "datagram from a name or address not connected to us",
    )
    DROP_TRUNCATED_RECORD = "drop_truncated_record", "record that runs past its datagram's end"
    DROP_TRAILING_BYTES = "drop_trailing_bytes", "stray bytes behind a datagram's last record"
    DROP_UNKNOWN_PEER = "drop_unknown_peer", "record whose source or destination peer is not known"
    DROP_OWN_SOURCE = "drop_own_source", "record that names ourselves as source: a forwarding loop"
    DROP_STRAY_SPECIAL = "drop_stray_special", "special frame that was not addressed to us"
    DROP_SPECIAL_FLOOD = (
        "drop_special_flood",
        "special frame beyond the number per second that is looked at",
    )
    DROP_BATCH_FULL = "drop_batch_full", "no room left in the batch"
    DROP_PATH_MTU = "drop_path_mtu", "datagram refused by the kernel as larger than the path's MTU"
    DROP_SEND_ERROR = "drop_send_error", "datagram refused by the kernel for another reason"
    DROP_PORT_DOWN = "drop_port_down", "frame not delivered: the bridge port is down"
    DROP_PORT_BUSY = "drop_port_busy", "frame not delivered: the kernel had no buffer for it"
    DROP_DECRYPT = (
        "drop_decrypt",
        "datagram that does not open: altered, or sealed with another key",
    )
    DROP_REPLAY = "drop_replay", "authentic datagram that came before, or is too old to tell"
    DROP_PLAIN_ON_ENCRYPTED = (
        "drop_plain_on_encrypted",
        "datagram in clear from a neighbour with whom everything is encrypted",
    )
    DROP_NONCE_EXHAUSTED = "drop_nonce_exhausted", "frame not sent: no nonce is left under the key"
    DROP_KEY_CHANGED = (
        "drop_key_changed",
        "frame not sealed under the key that its neighbour has by now",
    )
    DROP_SOCKET_BUFFER = "drop_socket_buffer", "datagram lost in the kernel: socket buffer overflow"


#: Exported names in the order of the C enum: index ``i`` is counter ``i`` of the native code.
COUNTER_NAMES: Final[tuple[str, ...]] = tuple(counter.value for counter in Counter)

#: The counters that say why something was thrown away.
DROP_REASONS: Final[frozenset[Counter]] = frozenset(
    counter for counter in Counter if counter.value.startswith("drop_")
)
