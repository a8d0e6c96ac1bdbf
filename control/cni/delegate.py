"""Other plugins' executables, called as a runtime calls them: with the host's root for theirs.

Source of truth: cni specification 9.
"""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any, Final

import anyio
import anyio.abc

from base.errors import CniError
from cni.codes import Code
from cni.config import decode_object
from cni.result import Result, decode
from control.cni.call import Call
from control.host.files import HostFiles

_OUTPUT_LEN_MAX: Final = 4 << 20
_BUSY_TRIES: Final = 20
_BUSY_PAUSE_S: Final = 0.02


def find(call: Call, plugin: str, files: HostFiles) -> str:
    """The first executable of that name in CNI_PATH, as the host has it.

    Raises:
        CniError: code 4 or 100.
    """
    if not call.environment.path:
        raise CniError(
            Code.BAD_ENVIRONMENT, "environment variable CNI_PATH is missing", f"needed for {plugin}"
        )
    for folder in call.environment.path:
        path = str(Path(folder, plugin))
        seen = files.path(path)
        if Path(seen).is_file() and os.access(seen, os.X_OK):
            return path
    raise CniError(
        Code.GENERAL,
        f'failed to find plugin "{plugin}"',
        f"in path {':'.join(call.environment.path)}",
    )


async def execute(
    call: Call, plugin: str, command: str, files: HostFiles, **variables: str
) -> bytes:
    """Run a plugin with the call's configuration and environment, the latter with changes.

    What it says on standard error is passed on. Cancelling kills it.

    Raises:
        CniError: its own, or 100: it cannot be run, or failed without saying why.
    """
    path = find(call, plugin, files)
    # by its path: the environment is the runtime's, which need not have ours
    chroot = shutil.which("chroot") or "/usr/sbin/chroot"
    argv = [chroot, files.root, path] if files.root else [path]
    environment = {**call.environment.variables, "CNI_COMMAND": command, **variables}
    async with await _start(argv, environment) as process:
        try:
            stdout, stderr = await _talk(process, call.base.given)
            status = await process.wait()
        except BaseException:
            process.kill()
            raise
    call.notes.extend(stderr.decode(errors="replace").splitlines())
    if status == 0:
        return stdout
    raise _error_of(plugin, status, stdout, stderr)


async def _start(argv: list[str], environment: dict[str, str]) -> anyio.abc.Process:
    for left in reversed(range(_BUSY_TRIES)):
        try:
            return await anyio.open_process(
                argv,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=environment,
                cwd="/",
            )
        except OSError as err:
            if err.errno != errno.ETXTBSY or not left:
                reason = err.strerror or str(err)
                raise CniError(Code.GENERAL, f"cannot run {argv[-1]}", reason) from err
        await anyio.sleep(_BUSY_PAUSE_S)  # it is being replaced at this moment
    raise AssertionError("the last round returns or raises")


async def _talk(process: anyio.abc.Process, given: bytes) -> tuple[bytes, bytes]:
    outputs: dict[str, bytes] = {}

    async def collect(name: str, stream: anyio.abc.ByteReceiveStream | None) -> None:
        parts = []
        length = 0
        if stream is not None:
            async for part in stream:
                length += len(part)
                if length <= _OUTPUT_LEN_MAX:
                    parts.append(part)
        outputs[name] = b"".join(parts)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(collect, "stdout", process.stdout)
        tasks.start_soon(collect, "stderr", process.stderr)
        if process.stdin is not None:
            try:
                await process.stdin.send(given)
                await process.stdin.aclose()
            except (anyio.BrokenResourceError, anyio.ClosedResourceError):
                pass  # it did not want to read it all
    return outputs["stdout"], outputs["stderr"]


def _error_of(plugin: str, status: int, stdout: bytes, stderr: bytes) -> CniError:
    shape: dict[str, Any] = {}
    try:
        shape = decode_object(stdout)
    except CniError:
        pass
    code, message, details = (shape.get(key) for key in ("code", "msg", "details"))
    if isinstance(code, int) and isinstance(message, str):
        return CniError(code, message, details if isinstance(details, str) else "")
    said = stderr.decode(errors="replace").strip() or stdout.decode(errors="replace").strip()
    return CniError(Code.GENERAL, f"plugin {plugin} failed with status {status}", said[:4096])


async def add(call: Call, plugin: str, files: HostFiles, **variables: str) -> Result:
    """ADD of an IPAM plugin.

    Raises:
        CniError: as :func:`execute`; also when it gives no address.
    """
    stdout = await execute(call, plugin, "ADD", files, **variables)
    result = decode(decode_object(stdout), call.base.version) if stdout.strip() else Result()
    if not result.ips:
        raise CniError(Code.GENERAL, "IPAM plugin failed to allocate IP address", plugin)
    if result.links:
        raise CniError(Code.GENERAL, f"{plugin} is no IPAM plugin", "its result has interfaces")
    return result
