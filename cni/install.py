"""The files of a node: executables, their names, and the network's configuration. Blocking.

What these folders hold decides what root runs: nothing is written through a symbolic link, and
everything arrives whole (temporary file, fsync, rename, fsync of the folder). The list of plugins
comes last, since its presence is what makes a kubelet call the network ready.

Source of truth: cni specification 11 and 17.
"""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from base.errors import ConfigError
from cni.versions import SUPPORTED, at_least

PLUGIN_FOLDERS: Final = (Path("/opt/cni/bin"), Path("/home/kubernetes/bin"))
CONFLIST: Final = "10-weave.conflist"
OLD_CONF: Final = "10-weave.conf"
#: Names under which a runtime calls the executable.
NAMES: Final = ("weave-net", "weave-ipam", "weft-host-local")
MARKER: Final = "weaveManaged"
STUB: Final = Path(__file__).resolve().parent / "stub" / "weft-cni"
_OURS: Final = ("weft-plugin-", "weave-plugin-")
_OFFERED: Final = SUPPORTED[SUPPORTED.index("0.3.1") :]
#: Runtimes that know nothing of ``cniVersions`` take this one.
_COMMON: Final = "1.0.0"
_PORTMAP_TIMEOUT_S: Final = 10
_CONFIG_LEN_MAX: Final = 1 << 20


@dataclass(slots=True, frozen=True)
class Wishes:
    """What the configuration is to say. Paths are None for the stub's own defaults."""

    hairpin: bool = True
    extra: Sequence[Mapping[str, Any]] = ()
    router_socket: Path | None = None
    pending: Path | None = None


@dataclass(slots=True)
class Installed:
    """What was done, in sentences, and what the user should know."""

    done: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def plugin_folder(given: Path | None) -> Path:
    """Where executables go: what was said, or the first place that is there, else the first."""
    if given is not None:
        return given
    return next((folder for folder in PLUGIN_FOLDERS if folder.is_dir()), PLUGIN_FOLDERS[0])


# Executables ------------------------------------------------------------------------------------


def install_plugins(folder: Path, version: str, into: Installed, stub: Path = STUB) -> None:
    """Put the executable there under its version, and switch its names to it.

    Raises:
        ConfigError: the folder or the executable cannot be had.
    """
    if not stub.is_file():
        raise ConfigError(f"setup-cni: {stub} is missing; run tools/setup.sh, which builds it")
    _folder(folder, "--plugin-dir")
    target = folder / f"weft-plugin-{version}"
    content = stub.read_bytes()
    if not _is_same(target, content, 0o755):
        _write(target, content, 0o755, "--plugin-dir")
        into.done.append(f"{target} installed")
    for name in NAMES:
        link = folder / name
        if link.is_symlink() and os.readlink(link) == target.name:  # noqa: PTH115
            continue
        _guard(folder, "--plugin-dir")
        fresh = folder / f".{name}.{os.getpid()}"
        try:
            fresh.symlink_to(target.name)
            fresh.replace(link)
        except OSError as err:
            fresh.unlink(missing_ok=True)
            raise _refused("--plugin-dir", link, err) from err
        into.done.append(f"{link} switched to {target.name}")
    _sync(folder)
    for old in _plugins_in(folder):
        if old != target:
            old.unlink(missing_ok=True)
            into.done.append(f"{old} removed")


def _plugins_in(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        if path.name.startswith(_OURS) and path.is_file() and not path.is_symlink():
            yield path


# Configuration ----------------------------------------------------------------------------------


def portmap_versions(folder: Path, path: str = "") -> list[str] | None:
    """Versions that the portmap plugin knows, None where there is no plugin that answers.

    ``path``: further folders, as in CNI_PATH.
    """
    for part in (folder, *map(Path, filter(None, path.split(":")))):
        plugin = part / "portmap"
        if not plugin.is_file():
            continue
        try:
            done = subprocess.run(
                [str(plugin)],
                input=json.dumps({"cniVersion": _COMMON}).encode(),
                env={"CNI_COMMAND": "VERSION", "CNI_PATH": str(folder)},
                capture_output=True,
                check=True,
                timeout=_PORTMAP_TIMEOUT_S,
            )
            known = json.loads(done.stdout)["supportedVersions"]
            return [one for one in _OFFERED if one in known]
        except (OSError, ValueError, KeyError, TypeError, subprocess.SubprocessError):
            return None
    return None


def conflist(wishes: Wishes, portmap: Sequence[str] | None) -> dict[str, Any]:
    """The list of plugins; ``portmap`` are the versions that portmap knows, None without one."""
    versions = list(portmap or _OFFERED)
    newest = [one for one in versions if at_least(_COMMON, one)]
    ours: dict[str, Any] = {"type": "weave-net", "hairpinMode": wishes.hairpin, MARKER: True}
    if wishes.router_socket is not None:
        ours["routerSocket"] = str(wishes.router_socket)
    if wishes.pending is not None:
        ours["pendingDir"] = str(wishes.pending)
    plugins = [ours]
    if portmap:
        plugins.append({"type": "portmap", "capabilities": {"portMappings": True}, "snat": True})
    plugins += [dict(one) for one in wishes.extra]
    return {
        "cniVersion": newest[-1] if newest else versions[0],
        "cniVersions": versions,
        "name": "weave",
        "plugins": plugins,
    }


def write_conflist(folder: Path, shape: Mapping[str, Any], into: Installed) -> None:
    """Write the list unless the user has one of their own there.

    Raises:
        ConfigError: it cannot be written, or would go through a symbolic link.
    """
    _folder(folder, "--config-dir")
    path = folder / CONFLIST
    content = json.dumps(shape, indent=4).encode() + b"\n"
    found = _read(path)
    if found is not None and not is_managed(found):
        into.warnings.append(f"{path} is not ours and stays; remove it to get a new one")
        return
    if not _is_same(path, content, 0o600):
        _write(path, content, 0o600, "--config-dir")
        into.done.append(f"{path} written")
    old = folder / OLD_CONF
    if old.exists() and not old.is_symlink():
        old.unlink()
        into.done.append(f"{old} removed")
        _sync(folder)


def is_managed(content: bytes) -> bool:
    """Whether a list of plugins is ours to change: it says so, or it is Weave Net's as written."""
    try:
        shape = json.loads(content)
        first, *others = shape["plugins"]
        if first.get(MARKER) is True:
            return True
        plain = {key: value for key, value in first.items() if key != "hairpinMode"}
        return (
            set(shape) == {"cniVersion", "name", "plugins"}
            and (shape["cniVersion"], shape["name"]) == ("0.3.0", "weave")
            and plain == {"name": "weave", "type": "weave-net"}
            and others
            == [{"type": "portmap", "capabilities": {"portMappings": True}, "snat": True}]
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        return False


# Removal ----------------------------------------------------------------------------------------


def uninstall(plugins: Path, configs: Path, into: Installed) -> None:
    """Remove what :func:`install_plugins` and :func:`write_conflist` made, the list first.

    Raises:
        ConfigError: something cannot be removed.
    """
    path = configs / CONFLIST
    found = _read(path)
    if found is not None and is_managed(found):
        _remove(path, into)
    elif found is not None:
        into.warnings.append(f"{path} is not ours and stays")
    if not plugins.is_dir():
        return
    ours = [path.name for path in _plugins_in(plugins)]
    for name in NAMES:
        link = plugins / name
        if link.is_symlink() and os.readlink(link).rpartition("/")[2] in ours:  # noqa: PTH115
            _remove(link, into)
    for name in ours:
        _remove(plugins / name, into)


def remove_records(folder: Path) -> None:
    """Forget what CNI calls have left in the folder of the node's state, for a node that leaves.

    Raises:
        ConfigError: it cannot be removed.
    """
    for name in ("cni", "pending-del"):
        try:
            shutil.rmtree(folder / name)
        except FileNotFoundError:
            continue
        except OSError as err:
            raise _refused("--db-prefix", folder / name, err) from err


# Files ------------------------------------------------------------------------------------------


def _refused(option: str, path: Path, err: OSError) -> ConfigError:
    return ConfigError(f"{option}: {path}: {err.strerror or err}")


def _folder(folder: Path, option: str) -> None:
    try:
        folder.mkdir(mode=0o755, parents=True, exist_ok=True)
    except OSError as err:
        raise _refused(option, folder, err) from err
    _guard(folder, option)


def _guard(folder: Path, option: str) -> None:
    """Refuse a folder that is a link, or that others than its owner may write to."""
    found = folder.lstat()
    if stat.S_ISLNK(found.st_mode):
        raise ConfigError(f"{option}: {folder} is a symbolic link; name the folder itself")
    if not stat.S_ISDIR(found.st_mode):
        raise ConfigError(f"{option}: {folder} is no folder")
    if found.st_uid != os.geteuid() or found.st_mode & 0o022:
        raise ConfigError(
            f"{option}: {folder} belongs to another user or others may write to it; chown root "
            "and chmod go-w"
        )


def _read(path: Path) -> bytes | None:
    if path.is_symlink():
        raise ConfigError(f"--config-dir: {path} is a symbolic link; remove it")
    try:
        with path.open("rb") as file:
            return file.read(_CONFIG_LEN_MAX)
    except FileNotFoundError:
        return None
    except OSError as err:
        raise _refused("--config-dir", path, err) from err


def _is_same(path: Path, content: bytes, mode: int) -> bool:
    if path.is_symlink() or not path.is_file():
        return False
    found = path.stat()
    return stat.S_IMODE(found.st_mode) == mode and path.read_bytes() == content


def _write(path: Path, content: bytes, mode: int, option: str) -> None:
    if path.is_symlink():
        raise ConfigError(f"{option}: {path} is a symbolic link; remove it")
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        fresh.unlink(missing_ok=True)
        fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode)
        with os.fdopen(fd, "wb") as file:
            os.fchmod(fd, mode)
            file.write(content)
            file.flush()
            os.fsync(fd)
        fresh.replace(path)
        _sync(path.parent)
    except OSError as err:
        fresh.unlink(missing_ok=True)
        raise _refused(option, path, err) from err
    if not _is_same(path, content, mode):
        raise ConfigError(f"{option}: {path} is not what was written; does another program write?")


def _remove(path: Path, into: Installed) -> None:
    try:
        path.unlink(missing_ok=True)
        _sync(path.parent)
    except OSError as err:
        raise _refused("setup-cni", path, err) from err
    into.done.append(f"{path} removed")


def _sync(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
