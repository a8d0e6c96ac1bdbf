"""``weft setup-cni``: the files by which container runtimes find this node.

What is written and when: :mod:`cni.install`. Source of truth: cni specification 11.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from base.errors import ConfigError
from control.cli import options as opt

_POLL_S: Final = 0.5
_STATUS_TIMEOUT_S: Final = 5
DEFAULT_CONFIG_DIR: Final = Path("/etc/cni/net.d")

app = typer.Typer()

_SETUP = """
Install the CNI plugins weave-net, weave-ipam and weft-host-local, and the configuration by which
kubelet, containerd and podman find them. The configuration comes last, once the node is ready:
its presence is what tells a runtime that the network is there.

An installation of Weave Net is taken over in place. A configuration that you wrote yourself stays.

Examples:

  weft setup-cni --wait 60

  weft setup-cni --now --no-hairpin

  weft setup-cni --uninstall
"""

PluginDir = Annotated[
    Path | None,
    typer.Option(
        "--plugin-dir",
        metavar="DIR",
        envvar="WEAVE_CNI_PLUGIN_DIR",
        show_default="/opt/cni/bin, or /home/kubernetes/bin if only that is there",
        help="Where runtimes look for plugins.",
    ),
]
ConfigDir = Annotated[
    Path,
    typer.Option("--config-dir", metavar="DIR", help="Where runtimes look for networks."),
]
Hairpin = Annotated[
    bool,
    typer.Option(
        "--hairpin/--no-hairpin",
        envvar="HAIRPIN_MODE",
        help="Let a container reach itself by its service's address.",
    ),
]
Extra = Annotated[
    str,
    typer.Option(
        "--extra-plugins",
        metavar="JSON",
        envvar="CNI_EXTRA_PLUGINS",
        show_default="none",
        help='Plugins to run after ours: a JSON list, such as [{"type": "bandwidth"}].',
    ),
]
Wait = Annotated[
    float,
    typer.Option(
        "--wait", metavar="SECONDS", min=0, help="How long the node may take to get ready."
    ),
]


@app.command("setup-cni", help=_SETUP)
def setup_cni(
    *,
    plugin_dir: PluginDir = None,
    config_dir: ConfigDir = DEFAULT_CONFIG_DIR,
    hairpin: Hairpin = True,
    extra_plugins: Extra = "",
    wait: Wait = 0,
    now: Annotated[
        bool, typer.Option("--now", help="Write the configuration, ready or not.")
    ] = False,
    uninstall: Annotated[
        bool, typer.Option("--uninstall", help="Remove everything again.")
    ] = False,
    control_socket: opt.ControlSocket = opt.DEFAULT_CONTROL_SOCKET,
    db_prefix: opt.DbPrefix = opt.DEFAULT_PREFIX,
) -> None:
    """Install or remove the CNI plugins."""
    from cni import install
    from control.version import weft_version

    folder = install.plugin_folder(plugin_dir)
    into = install.Installed()
    if uninstall:
        install.uninstall(folder, config_dir, into)
        _tell(into.done, into.warnings)
        return
    extra = _extra(extra_plugins)
    changed = str(control_socket) != str(opt.DEFAULT_CONTROL_SOCKET)
    wishes = install.Wishes(
        hairpin=hairpin,
        extra=extra,
        router_socket=control_socket.with_name("cni.sock") if changed else None,
        pending=None if db_prefix == opt.DEFAULT_PREFIX else Path(db_prefix).parent / "pending-del",
    )
    install.install_plugins(folder, weft_version(), into)
    versions = install.portmap_versions(folder, os.environ.get("CNI_PATH", ""))
    if not versions:
        into.warnings.append(f"there is no portmap plugin in {folder}: no host ports")
    shape = install.conflist(wishes, versions)
    if not now:
        problem = _until_ready(folder / "weave-net", shape, wait)
        if problem:
            _tell(into.done, into.warnings)
            raise ConfigError(
                f"setup-cni: the node is not ready ({problem}), so no network was written; start "
                "it with weft launch and give --wait, or give --now"
            )
    install.write_conflist(config_dir, shape, into)
    _tell(into.done, into.warnings)


def _tell(done: list[str], warnings: list[str]) -> None:
    for line in done:
        print(line)
    for line in warnings:
        print(f"weft: setup-cni: {line}", file=sys.stderr)


def _extra(text: str) -> list[dict[str, Any]]:
    if not text.strip():
        return []
    try:
        found = json.loads(text)
    except ValueError as err:
        raise ConfigError(f"--extra-plugins: no JSON: {err}") from err
    if not isinstance(found, list) or not all(
        isinstance(one, dict) and isinstance(one.get("type"), str) for one in found
    ):
        raise ConfigError('--extra-plugins: give a list of objects that have a "type"')
    return found


def _until_ready(stub: Path, shape: dict[str, Any], wait_s: float) -> str:
    """Ask for STATUS until it is good; what is wrong when the time is over, else nothing."""
    config = {
        **shape["plugins"][0],
        "cniVersion": "1.1.0",
        "name": shape["name"],
        "timeout": _STATUS_TIMEOUT_S,
    }
    deadline = time.monotonic() + wait_s
    while True:
        done = subprocess.run(
            [str(stub)],
            input=json.dumps(config).encode(),
            env={"CNI_COMMAND": "STATUS", "CNI_PATH": str(stub.parent)},
            capture_output=True,
            check=False,
        )
        if done.returncode == 0:
            return ""
        if time.monotonic() >= deadline:
            error = json.loads(done.stdout)
            return f"{error['msg']}: {error['details']}" if "details" in error else error["msg"]
        time.sleep(_POLL_S)
