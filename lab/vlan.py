"""802.1Q interfaces in containers, also on kernels built without VLAN devices.

With CONFIG_VLAN_8021Q this is ``ip link add ... type vlan``. Without, the same is made of a veth
pair and two BPF programs: frames sent by ``eth0.5`` arrive at its twin, get a tag pushed and leave
by ``eth0``; tagged frames that arrive at ``eth0`` lose the tag and go to the twin::

    eth0.5 ══ vlan5 ──push tag, redirect──▶ eth0 ──▶ bridge
    eth0.5 ══ vlan5 ◀──pop tag, redirect─── eth0 ◀── bridge

Super-frames keep their offload metadata both ways, as with a real VLAN device. The programs are
assembled here by hand (ten instructions each), since no compiler may be assumed.

Ref: linux/bpf.h (bpf_insn, __sk_buff), linux/pkt_cls.h (TCA_BPF_*), bpf-helpers(7).
"""

from __future__ import annotations

import ctypes
import os
import platform
import socket
import struct
from collections.abc import Sequence
from typing import Final

from base.errors import PlatformError
from lab.node import Node

_ETH_P_ALL: Final = 0x0003
_ETH_P_8021Q: Final = 0x8100
_SYS_BPF: Final = {"x86_64": 321, "aarch64": 280, "riscv64": 280}
_BPF_PROG_LOAD: Final = 5
_BPF_PROG_TYPE_SCHED_CLS: Final = 3

_HELPER_VLAN_PUSH: Final = 18
_HELPER_VLAN_POP: Final = 19
_HELPER_REDIRECT: Final = 23
_SKB_VLAN_PRESENT: Final = 20
_SKB_VLAN_TCI: Final = 24
_ACTION_UNSPEC: Final = -1

_RTM_NEWTFILTER: Final = 44
_NLM_REQUEST_ACK_CREATE_EXCL: Final = 0x1 | 0x4 | 0x400 | 0x200
_CLSACT_INGRESS: Final = 0xFFFFFFF2
_TCA_KIND, _TCA_OPTIONS, _TCA_BPF_FD, _TCA_BPF_NAME, _TCA_BPF_FLAGS = 1, 2, 6, 7, 8
_TCA_BPF_FLAG_ACT_DIRECT: Final = 1


def add(node: Node, parent: str, vid: int, addresses: Sequence[str]) -> str:
    """Make ``parent.vid`` in ``node`` with ``addresses`` and return its name.

    Raises:
        PlatformError: no VLAN devices and no BPF either.
    """
    name = f"{parent}.{vid}"
    try:
        node.ip(f"link add link {parent} name {name} type vlan id {vid}")
    except PlatformError:
        _add_by_bpf(node, parent, name, vid)
    lines = [f"addr add {address} dev {name}{_nodad(address)}" for address in addresses]
    node.ip(*lines, f"link set {name} up")
    return name


def _nodad(address: str) -> str:
    return " nodad" if ":" in address else ""


def _add_by_bpf(node: Node, parent: str, name: str, vid: int) -> None:
    mac = node.read(f"/sys/class/net/{parent}/address")
    mtu = node.mtu(parent)
    twin = f"vlan{vid}"
    node.ip(
        f"link add {name} mtu {mtu} address {mac} type veth peer name {twin} mtu {mtu}",
        f"link set {twin} up",
    )
    node.sysctl({f"net/ipv6/conf/{twin}/disable_ipv6": 1})
    parent_index = int(node.read(f"/sys/class/net/{parent}/ifindex"))
    twin_index = int(node.read(f"/sys/class/net/{twin}/ifindex"))

    def attach() -> None:
        _attach(twin_index, _push_program(vid, parent_index), f"push{vid}", priority=1)
        _attach(parent_index, _pop_program(vid, twin_index), f"pop{vid}", priority=vid)

    for device in (twin, parent):
        node.namespaces.tool(node.namespace, ["tc", "qdisc", "replace", "dev", device, "clsact"])
    try:
        node.call(attach)
    except OSError as err:
        raise PlatformError("attach BPF to", name, str(err), err.errno or 0) from err


def _instruction(code: int, dst: int = 0, src: int = 0, off: int = 0, imm: int = 0) -> bytes:
    return struct.pack("=BBhi", code, (src << 4) | dst, off, imm)


def _move(dst: int, imm: int) -> bytes:
    return _instruction(0xB7, dst, imm=imm)


def _copy(dst: int, src: int) -> bytes:
    return _instruction(0xBF, dst, src)


def _call(helper: int) -> bytes:
    return _instruction(0x85, imm=helper)


_EXIT: Final = _instruction(0x95)


def _redirect(ifindex: int) -> bytes:
    return _move(1, ifindex) + _move(2, 0) + _call(_HELPER_REDIRECT) + _EXIT


def _push_program(vid: int, ifindex: int) -> bytes:
    """Context in r1: push tag ``vid``, send out of ``ifindex``."""
    tag = _move(2, socket.htons(_ETH_P_8021Q)) + _move(3, vid) + _call(_HELPER_VLAN_PUSH)
    return tag + _redirect(ifindex)


def _pop_program(vid: int, ifindex: int) -> bytes:
    """Context in r1: frames tagged ``vid`` go untagged out of ``ifindex``, others pass."""
    take = _copy(1, 6) + _call(_HELPER_VLAN_POP) + _redirect(ifindex)
    skip = len(take) // 8
    test = (
        _copy(6, 1)
        + _instruction(0x61, 2, 1, _SKB_VLAN_PRESENT)  # r2 = skb->vlan_present
        + _instruction(0x15, 2, off=skip + 3)  # none: pass
        + _instruction(0x61, 2, 1, _SKB_VLAN_TCI)  # r2 = skb->vlan_tci
        + _instruction(0x57, 2, imm=0x0FFF)  # r2 &= VID mask
        + _instruction(0x55, 2, off=skip, imm=vid)  # another VLAN: pass
    )
    return test + take + _move(0, _ACTION_UNSPEC) + _EXIT


def _load(program: bytes) -> int:
    """Load a classifier and return its descriptor.

    Raises:
        OSError: the kernel refuses, or this machine's call number is unknown.
    """
    code = ctypes.create_string_buffer(program, len(program))
    licence = ctypes.create_string_buffer(b"GPL")
    attributes = struct.pack(
        "=IIQQ32x",
        _BPF_PROG_TYPE_SCHED_CLS,
        len(program) // 8,
        ctypes.addressof(code),
        ctypes.addressof(licence),
    )
    libc = ctypes.CDLL(None, use_errno=True)
    call_number = _SYS_BPF.get(platform.machine())
    if call_number is None:
        raise OSError(0, f"no BPF call number for {platform.machine()}")
    fd: int = libc.syscall(call_number, _BPF_PROG_LOAD, attributes, len(attributes))
    if fd < 0:
        errno = ctypes.get_errno()
        raise OSError(errno, os.strerror(errno))
    return fd


def _attribute(kind: int, value: bytes) -> bytes:
    length = 4 + len(value)
    return struct.pack("=HH", length, kind) + value + bytes(-length % 4)


def _attach(ifindex: int, program: bytes, name: str, *, priority: int) -> None:
    """Attach ``program`` to the ingress of ``ifindex`` in the current namespace.

    Raises:
        OSError: the kernel refuses.
    """
    fd = _load(program)
    try:
        options = (
            _attribute(_TCA_BPF_FD, struct.pack("=I", fd))
            + _attribute(_TCA_BPF_NAME, name.encode() + b"\0")
            + _attribute(_TCA_BPF_FLAGS, struct.pack("=I", _TCA_BPF_FLAG_ACT_DIRECT))
        )
        info = (priority << 16) | socket.htons(_ETH_P_ALL)
        body = struct.pack("=BxxxiIII", 0, ifindex, 0, _CLSACT_INGRESS, info)
        body += _attribute(_TCA_KIND, b"bpf\0") + _attribute(_TCA_OPTIONS, options)
        header = struct.pack(
            "=IHHII", 16 + len(body), _RTM_NEWTFILTER, _NLM_REQUEST_ACK_CREATE_EXCL, 1, 0
        )
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as link:
            link.send(header + body)
            answer = link.recv(4096)
        (error,) = struct.unpack_from("=i", answer, 16)
        if error:
            raise OSError(-error, os.strerror(-error))
    finally:
        os.close(fd)
