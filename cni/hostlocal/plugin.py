"""The commands of host-local: what a call gives back. Blocking, for a worker thread.

Source of truth: cni specification 10. The reference plugin has neither GC nor STATUS.
"""

from __future__ import annotations

from ipaddress import ip_interface

from base.errors import CniError
from cni.codes import Code
from cni.config import BaseConfig, valid_attachments
from cni.environment import Environment
from cni.fields import Address, Interface
from cni.hostlocal.config import HostLocalConfig, folder_of, parse_host_local, read_resolver
from cni.hostlocal.ranges import Range, RangeSet, parse_address
from cni.hostlocal.store import Store, WouldBlockError
from cni.result import Ip, Result


def _io_failure(folder: object, err: OSError) -> CniError:
    return CniError(Code.IO_FAILURE, f"host-local cannot use {folder}", err.strerror or str(err))


def add(base: BaseConfig, environment: Environment, *, wait: bool = True) -> Result:
    """One address from each set.

    Raises:
        CniError: code 7, 4, 5, 103 (nothing free), 104 (taken), 100 (asked for twice).
        WouldBlockError: not to wait, and it could take long; nothing was done.
    """
    config = parse_host_local(base, environment.args)
    if config.resolv_conf and not wait:
        raise WouldBlockError
    dns = read_resolver(config.resolv_conf)
    container_id, ifname = environment.container_id, environment.ifname
    try:
        with Store.open(config.folder, wait=wait) as store:
            ips = _allocate_all(store, config, container_id, ifname)
    except OSError as err:
        raise _io_failure(config.folder, err) from err
    return Result(ips=ips, routes=config.routes, dns=dns)


def _allocate_all(
    store: Store, config: HostLocalConfig, container_id: str, ifname: str
) -> tuple[Ip, ...]:
    mine = store.names_of(container_id, ifname)
    wanted = list(config.requested)
    ips: list[Ip] = []
    try:
        for one in config.sets:
            asked = next((ip for ip in wanted if one.range_of(ip) is not None), None)
            if asked is not None:
                wanted.remove(asked)
                ips.append(_take(store, one, asked, container_id, ifname))
            else:
                _refuse_second(one, mine, container_id)
                ips.append(_search(store, one, container_id, ifname))
        if wanted:
            shown = ", ".join(str(ip) for ip in wanted)
            raise CniError(Code.INVALID_CONFIG, "requested addresses are in no range", shown)
    except BaseException:
        store.remove([str(ip.address.ip) for ip in ips])
        raise
    return tuple(ips)


def _refuse_second(one: RangeSet, mine: list[str], container_id: str) -> None:
    for name in mine:
        address = parse_address(name)
        if address is not None and one.range_of(address) is not None:
            raise CniError(
                Code.GENERAL,
                f"{address} has been allocated to {container_id}, "
                "duplicate allocation is not allowed",
            )


def _take(store: Store, one: RangeSet, asked: Address, container_id: str, ifname: str) -> Ip:
    found = one.range_of(asked)
    if found is None:
        raise AssertionError("the caller looked")
    if one.is_gateway(asked):
        raise CniError(Code.ADDRESS_IN_USE, f"requested address {asked} is the subnet's gateway")
    if not store.reserve(container_id, ifname, asked, one.index):
        raise CniError(
            Code.ADDRESS_IN_USE,
            f"requested IP address {asked} is not available in range set {one}",
        )
    return _ip(asked, found)


def _search(store: Store, one: RangeSet, container_id: str, ifname: str) -> Ip:
    for address, found in one.candidates(store.last_reserved(one.index)):
        if store.reserve(container_id, ifname, address, one.index):
            return _ip(address, found)
    raise CniError(Code.POOL_EXHAUSTED, f"no IP addresses available in range set: {one}")


def _ip(address: Address, found: Range) -> Ip:
    return Ip(_interface(address, found), found.gateway)


def _interface(address: Address, found: Range) -> Interface:
    return ip_interface((address, found.subnet.prefixlen))


def delete(base: BaseConfig, environment: Environment, *, wait: bool = True) -> None:
    """Give every address of the interface back; that there is none is no error.

    Raises:
        CniError: code 7 or 5.
        WouldBlockError: not to wait, and it could take long; nothing was done.
    """
    folder = folder_of(base)
    try:
        store = Store.open_existing(folder, wait=wait)
        if store is not None:
            with store:
                store.release(environment.container_id, environment.ifname)
    except OSError as err:
        raise _io_failure(folder, err) from err


def check(base: BaseConfig, environment: Environment) -> None:
    """Find that the interface has an address.

    Raises:
        CniError: code 7 or 5; 100, it has none.
    """
    folder = folder_of(base)
    try:
        store = Store.open_existing(folder)
        found: list[str] = []
        if store is not None:
            with store:
                found = store.names_of(environment.container_id, environment.ifname)
    except OSError as err:
        raise _io_failure(folder, err) from err
    if not found:
        raise CniError(
            Code.GENERAL,
            f"host-local: no address of container {environment.container_id} in {folder}",
        )


def collect(base: BaseConfig) -> None:
    """GC: drop what belongs to no valid attachment.

    Raises:
        CniError: code 7 or 5.
    """
    valid = valid_attachments(base)
    containers = {container_id for container_id, _ in valid}
    folder = folder_of(base)
    try:
        store = Store.open_existing(folder)
        if store is None:
            return
        with store:
            store.remove(
                [
                    name
                    for name, owner, ifname in store.records()
                    if owner  # an empty file is being written, or will be free by itself
                    and (owner, ifname) not in valid
                    and not (ifname == "" and owner in containers)
                ]
            )
    except OSError as err:
        raise _io_failure(folder, err) from err


def status(base: BaseConfig) -> None:
    """Find that every set has a free address.

    Raises:
        CniError: code 7 or 5; 50, one has none.
    """
    config = parse_host_local(base, {})
    try:
        store = Store.open_existing(config.folder)
        if store is None:
            return
        with store:
            for one in config.sets:
                if not any(store.is_free(address) for address, _ in one.candidates(None)):
                    raise CniError(Code.UNAVAILABLE, f"no free address in range set {one}")
    except OSError as err:
        raise _io_failure(config.folder, err) from err
