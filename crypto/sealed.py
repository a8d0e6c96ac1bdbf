"""The box that seals and opens: each neighbour's datagrams under the key it has.

One box serves all neighbours, whatever their ciphers: keys live with the datapath's forwarders
(:func:`set_key`), and a neighbour without a key is left in clear: there is no password, or both
sides trust each other's subnet. Any number of threads may use it, each on batches of its own.
"""

from __future__ import annotations

from base.errors import CryptoError
from crypto.ciphers import Cipher
from native import ffi, lib
from native.datapath import Batch, Datapath


class SealedBox:
    """Seals and opens whole batches, one C call each."""

    def __init__(self, datapath: Datapath) -> None:
        self._datapath = datapath

    def seal(self, batch: Batch) -> None:
        """Messages that cannot be sealed leave the batch, counted by reason; none goes in clear."""
        lib.wn_seal(self._datapath.c, batch.c)

    def open(self, batch: Batch) -> None:
        """Datagrams that don't open or repeat are counted and passed over by decapsulation."""
        lib.wn_open(self._datapath.c, batch.c)


def set_key(
    datapath: Datapath, forwarder: int, cipher: Cipher, key: bytes, *, outbound: bool
) -> None:
    """Protect a neighbour's datagrams from now on; ``outbound``: we dialled it.

    The same key again changes nothing. ``Cipher.NONE`` with an empty key: in clear from now on.

    Raises:
        CryptoError: the forwarder is not set, or some forwarder has used the key before: its
            nonces would repeat, and the connection has to be made anew.
    """
    if cipher is not Cipher.NONE and len(key) != lib.WN_KEY_LEN:
        raise ValueError(f"a key of {len(key)} bytes")
    code = lib.wn_forwarder_set_key(datapath.c, forwarder, cipher, key or ffi.NULL, outbound)
    if code == lib.WN_ERR_NOMEM:
        raise MemoryError("no memory for a session")
    if code != lib.WN_OK:
        raise CryptoError(f"forwarder {forwarder} does not take this key")


def put_records(
    datapath: Datapath, batch: Batch, forwarder: int, records: bytes, *, df: bool
) -> None:
    """Add a datagram of our own making (a heartbeat, a probe) to the batch's messages.

    ``records`` are as on the wire (src peer, dst peer, length, frame, repeated), without the
    sender's name. The batch then goes through ``seal`` and is sent like any other.

    Raises:
        ValueError: there is no such forwarder, the records are too long, or the batch is full.
    """
    code = lib.wn_batch_put_message(datapath.c, batch.c, forwarder, int(df), records, len(records))
    if code != lib.WN_OK:
        raise ValueError(f"no message of {len(records)} bytes for forwarder {forwarder}")


def backend(cipher: Cipher) -> str:
    """What does the work on this machine, for status and reports."""
    return bytes(ffi.string(lib.wn_cipher_backend(cipher))).decode("ascii")
