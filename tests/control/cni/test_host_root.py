"""host-local's files and other plugins where the host's root is mounted somewhere."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from base.errors import CniError
from cni.config import parse_base
from cni.environment import parse_environment
from control.cni.call import Call
from control.cni.ipams import Foreign, HostLocal
from control.host.files import HostFiles

pytestmark = [pytest.mark.anyio, pytest.mark.netns]

SUBNET = "10.60.0.0/24"


def _call(command: str, ipam: dict[str, Any], path: str = "/opt/cni/bin") -> Call:
    config = {"cniVersion": "1.0.0", "name": "net", "type": "weave-net", "ipam": ipam}
    variables = {
        "CNI_COMMAND": command,
        "CNI_CONTAINERID": "c1",
        "CNI_IFNAME": "eth0",
        "CNI_NETNS": "/var/run/netns/c1",
        "CNI_PATH": path,
    }
    return Call(parse_environment(variables), parse_base(json.dumps(config).encode()))


@pytest.mark.parametrize("data_dir", [None, "", "/var/lib/cni/networks", "/srv/addresses"])
async def test_host_local_keeps_its_files_on_the_host(tmp_path: Path, data_dir: str | None) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "resolv.conf").write_text("nameserver 10.60.0.53\n")
    ipam = {"type": "host-local", "subnet": SUBNET, "resolvConf": "/etc/resolv.conf"}
    if data_dir is not None:
        ipam["dataDir"] = data_dir
    local = HostLocal(HostFiles(str(tmp_path)))
    folder = tmp_path / (data_dir or "/var/lib/cni/networks")[1:] / "net"
    result = await local.add(_call("ADD", ipam))
    assert [str(ip.address) for ip in result.ips] == ["10.60.0.2/24"]
    assert result.dns == {"nameservers": ["10.60.0.53"]}
    assert (folder / "10.60.0.2").exists()
    await local.check(_call("CHECK", ipam))
    await local.status(_call("STATUS", ipam))
    await local.delete(_call("DEL", ipam))
    assert not (folder / "10.60.0.2").exists()


async def test_what_is_no_path_is_refused_as_ever(tmp_path: Path) -> None:
    local = HostLocal(HostFiles(str(tmp_path)))
    for wrong in ("relative", 5):
        with pytest.raises(CniError, match="dataDir"):
            await local.add(_call("ADD", {"subnet": SUBNET, "dataDir": wrong}))


async def test_other_plugins_run_in_the_hosts_root(tmp_path: Path) -> None:
    answer = {"cniVersion": "1.0.0", "ips": [{"address": "10.50.0.5/24"}]}
    plugin = tmp_path / "plugin"
    plugin.write_text(f"#!/bin/sh\nls -d /proc/self/root >&2\necho '{json.dumps(answer)}'\n")
    plugin.chmod(0o755)
    # another way to say "/": chroot has to be called, and what it runs has to be found
    foreign = Foreign("plugin", HostFiles("/proc/self/root"))
    call = _call("ADD", {"type": "plugin"}, f"/none:{tmp_path}")
    result = await foreign.add(call)
    assert [str(ip.address) for ip in result.ips] == ["10.50.0.5/24"]
    assert call.notes == ["/proc/self/root"]
    with pytest.raises(CniError, match='failed to find plugin "plugin"'):
        await foreign.status(_call("STATUS", {"type": "plugin"}, "/none"))
