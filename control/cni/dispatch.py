"""From a request to what the stub prints: checks, order, time-outs, errors.

Calls for one container come one after the other. No lock or slot is held that another container's
DEL would need while an ADD waits for its address. Source of truth: cni specification 6 to 8.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from typing import Any, Final

import anyio
import msgspec

from base.errors import (
    AllocationError,
    ClaimConflictError,
    CniError,
    ConfigError,
    NoAddressError,
    NotStoredError,
    OutOfBoundsError,
    WeftError,
)
from base.log import kv
from cni.codes import EXIT_FAILED, Code, error_object
from cni.config import decode_object, parse_base, timeout_of
from cni.environment import parse_environment
from cni.errors import BridgeMissingError, InterfaceExistsError, NetnsError, NetnsGoneError
from cni.result import Result, encode
from cni.versions import NEWEST, SUPPORTED, require, version_answer
from control.cni.call import Call, Plugin
from control.cni.ipams import DelegateError
from control.cni.locks import KeyedLocks
from control.cni.pending import Pending, PendingReleases
from control.cni.wire import Answer, Request
from control.state import StateWriteError

log = logging.getLogger(__name__)

#: Code (50 or 51) and sentence about what keeps this node from serving; None: nothing does.
Readiness = Callable[[], tuple[Code, str] | None]

#: Commands that are about one attachment.
_OF_ONE: Final = ("ADD", "DEL", "CHECK")


class Dispatcher:
    """``plugins`` by the name that the stub is called by. Used from one event loop."""

    def __init__(
        self,
        plugins: Mapping[str, Plugin],
        pending: PendingReleases,
        readiness: Readiness | None = None,
    ) -> None:
        self._plugins = plugins
        self._readiness = readiness
        self._pending = pending
        self._locks = KeyedLocks()

    async def handle(self, request: Request, netns_fd: int | None = None) -> Answer:
        """Serve one call. Never raises but for cancellation; ``netns_fd`` stays the caller's."""
        begin = time.monotonic()
        command = request.variables.get("CNI_COMMAND", "")[:16]
        try:
            answer = await self._serve(request, netns_fd)
        except CniError as err:
            answer = _failed(err, request)
            log.warning(
                "CNI call failed",
                extra=kv(
                    command=command,
                    container=request.variables.get("CNI_CONTAINERID", "")[:64],
                    ifname=request.variables.get("CNI_IFNAME", "")[:15],
                    code=int(err.code),
                    err=err,
                ),
            )
        except Exception as err:
            # a fault of ours: the runtime is told, and the node goes on
            log.exception("CNI call failed inside", extra=kv(command=command))
            internal = CniError(Code.INTERNAL, "internal error", f"{type(err).__name__}: {err}")
            answer = _failed(internal, request)
        log.debug(
            "CNI call",
            extra=kv(command=command, status=answer.status, took_s=time.monotonic() - begin),
        )
        return answer

    async def _serve(self, request: Request, netns_fd: int | None) -> Answer:
        environment = parse_environment(request.variables)
        if environment.command == "VERSION":
            given = decode_object(request.config).get("cniVersion") if request.config else None
            return Answer(0, _json(version_answer(given)))
        plugin = self._plugins.get(request.personality)
        if plugin is None:
            raise CniError(
                Code.GENERAL,
                f"no plugin is called {request.personality[:64]}",
                f"this program serves {', '.join(self._plugins)}",
            )
        try:
            base = parse_base(request.config)
            require(environment.command, base.version)
        except CniError as err:
            if environment.command != "DEL":
                raise
            # nothing can be found by it; a runtime that repeats DEL for ever would help nobody
            log.warning("DEL without a readable configuration", extra=kv(err=err))
            return Answer(0)
        call = Call(environment, base, netns_fd)
        result = await self._in_order(plugin, call, request)
        stdout = b"" if result is None else _json(encode(result, base.version))
        return Answer(0, stdout, "".join(f"{note}\n" for note in call.notes).encode())

    async def _in_order(self, plugin: Plugin, call: Call, request: Request) -> Result | None:
        command = call.environment.command
        timeout_s = _timeout(call)
        try:
            with anyio.fail_after(timeout_s):
                async with AsyncExitStack() as held:
                    if command in _OF_ONE:
                        await held.enter_async_context(self._locks.hold(call.container_id))
                        if command != "DEL":
                            await self._release_first(call.container_id)
                    if command == "STATUS":
                        self._require_ready()
                    return await _run(plugin, call)
        except TimeoutError as err:
            failure = CniError(
                Code.TRY_AGAIN, f"{command} was not done within {timeout_s:g} s", _waited(command)
            )
            if command != "DEL":
                raise failure from err
            error: CniError = failure
        except CniError as err:
            if command != "DEL":
                raise
            error = err
        await self._later(call, request, error)
        return None

    def _require_ready(self) -> None:
        problem = None if self._readiness is None else self._readiness()
        if problem is not None:
            raise CniError(problem[0], problem[1])

    async def _later(self, call: Call, request: Request, error: CniError) -> None:
        """A DEL that failed: written down, so that neither an address leaks nor a pod hangs."""
        if isinstance(error, DelegateError) or error.code in (
            Code.BAD_ENVIRONMENT,
            Code.INVALID_CONFIG,
        ):
            raise error
        try:
            await self._pending.write(request)
        except OSError as err:
            raise CniError(
                Code.TRY_AGAIN,
                error.message,
                f"{error.details}; and the release cannot be written down: {err}".lstrip("; "),
            ) from err
        call.notes.append(f"the release waits: {error}")
        log.warning(
            "release waits",
            extra=kv(container=call.container_id, ifname=call.ifname, err=error),
        )

    async def _release_first(self, container_id: str) -> None:
        """What still has to be given back of a container before it gets something new."""
        for entry in await self._pending.of_container(container_id):
            await self._release(entry)

    async def drain(self) -> int:
        """Carry out the releases that wait; how many are left."""
        left = 0
        for entry in await self._pending.entries():
            container_id = entry.request.variables.get("CNI_CONTAINERID", "")
            async with self._locks.hold(container_id):
                left += not await self._release(entry)
        return left

    async def _release(self, entry: Pending) -> bool:
        plugin = self._plugins.get(entry.request.personality)
        try:
            if plugin is not None:
                base = parse_base(entry.request.config)
                call = Call(parse_environment(entry.request.variables), base)
                with anyio.fail_after(_timeout(call)):
                    await _run(plugin, call)
        except (CniError, TimeoutError) as err:
            lasting = isinstance(err, CniError) and err.code in (
                Code.UNDECODABLE,
                Code.INVALID_CONFIG,
                Code.BAD_ENVIRONMENT,
                Code.INCOMPATIBLE_VERSION,
            )
            log.warning("release failed", extra=kv(file=entry.path.name, err=err, lasting=lasting))
            if not lasting:
                return False
        await self._pending.done(entry)
        return True


def _timeout(call: Call) -> float:
    return timeout_of(call.base.raw)


def _waited(command: str) -> str:
    if command == "ADD":
        return "no address was to be had: too few peers agree, or none has space"
    return ""


async def _run(plugin: Plugin, call: Call) -> Result | None:
    """One command.

    Raises:
        CniError: whatever went wrong, as a runtime is to be told.
    """
    try:
        match call.environment.command:
            case "ADD":
                return await plugin.add(call)
            case "DEL":
                await plugin.delete(call)
            case "CHECK":
                await plugin.check(call)
            case "GC":
                await plugin.collect(call)
            case "STATUS":
                await plugin.status(call)
    except CniError:
        raise
    except WeftError as err:
        raise translate(err) from err
    return None


def translate(error: WeftError) -> CniError:
    """Any of our errors as CNI has it."""
    code = Code.GENERAL
    match error:
        case NetnsError():
            code = Code.INVALID_NETNS
        case NetnsGoneError():
            code = Code.UNKNOWN_CONTAINER
        case InterfaceExistsError():
            code = Code.INTERFACE_EXISTS
        case BridgeMissingError():
            code = Code.BRIDGE_MISSING
        case NotStoredError() | StateWriteError():
            code = Code.IO_FAILURE
        case OutOfBoundsError() | ConfigError():
            code = Code.INVALID_CONFIG
        case NoAddressError():
            # what was waited for is only in its text: space, or other peers
            code = Code.POOL_EXHAUSTED if "free address" in str(error) else Code.TRY_AGAIN
        case ClaimConflictError():
            code = Code.ADDRESS_IN_USE
        case AllocationError():
            code = Code.TRY_AGAIN
    return CniError(code, str(error))


def _failed(error: CniError, request: Request) -> Answer:
    return Answer(EXIT_FAILED, _json(error_object(error, _version(request.config))))


def _version(config: bytes) -> str:
    """The version to name in an error, whatever is wrong."""
    try:
        given = decode_object(config).get("cniVersion", SUPPORTED[0])
    except CniError:
        return NEWEST
    return given if given in SUPPORTED else NEWEST


def _json(shape: Mapping[str, Any]) -> bytes:
    return msgspec.json.format(msgspec.json.encode(shape), indent=4) + b"\n"
