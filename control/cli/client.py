"""The command line's side of the HTTP API: the first address of ``--http-addr`` that answers.

Addresses are tried in order. One that nobody listens on, or that we may not open, is passed over;
an answer, whatever it says, is the answer.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import urlencode

from base.errors import ConfigError, WeftError
from control.cli.http_request import (
    CUT_OFF,
    NO_ANSWER,
    TARGET_LEN_MAX,
    UNREACHED,
    Answer,
    request,
)
from control.http_addr import OPTION, HttpAddr, UnixAddr, parse_http_addrs
from control.run_lock import LOCK_NAME, RunLock

EXIT_NOT_LAUNCHED: Final = 1
EXIT_NOT_RUNNING: Final = 2
EXIT_REFUSED: Final = 1
EXIT_NOT_FOUND: Final = 4
_TIMEOUT_S: Final = 10.0
#: Names of many peers may have to be looked up.
_CHANGE_TIMEOUT_S: Final = 60.0


class NodeUnreachableError(WeftError):
    """No answer; ``exit_code`` tells "never launched" (1) from "not running" (2)."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class AnswerError(WeftError):
    """The node refused; ``exit_code`` 4 when it does not know such a request, else 1."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.exit_code = EXIT_NOT_FOUND if status == HTTPStatus.NOT_FOUND else EXIT_REFUSED


@dataclass(slots=True)
class _Failures:
    """What became of the addresses that did not answer."""

    absent: list[str] = field(default_factory=list)
    dead: list[str] = field(default_factory=list)
    denied: list[str] = field(default_factory=list)

    def error(self, launcher: str) -> NodeUnreachableError:
        if self.denied:
            return NodeUnreachableError(
                f"{OPTION}: {self.denied[0]}: permission denied; run as root", EXIT_NOT_LAUNCHED
            )
        if launcher and not self.absent:
            return NodeUnreachableError(
                f"{OPTION}: the node ({launcher}) does not answer at "
                f"{' and '.join(self.dead)}: it is starting, or its socket was removed; wait, or "
                "run 'weft stop' and 'weft launch'",
                EXIT_NOT_RUNNING,
            )
        if self.dead and not self.absent:
            return NodeUnreachableError(
                f"{OPTION}: the node at {' and '.join(self.dead)} is not running; "
                "run 'weft launch'",
                EXIT_NOT_RUNNING,
            )
        nothing = " and ".join([*self.absent, *self.dead])
        return NodeUnreachableError(
            f"{OPTION}: no node is launched here (nothing at {nothing}); run 'weft launch'",
            EXIT_NOT_LAUNCHED,
        )


def get(
    http_addr: str, path: str, accept: str = "text/plain", params: dict[str, str] | None = None
) -> Answer:
    """GET ``path`` from the first of the addresses that answers.

    Raises:
        NodeUnreachableError: none did; one line, with the remedy.
        ConfigError: one of them is no address.
    """
    return _request(http_addr, "GET", path, _TIMEOUT_S, accept=accept, params=params)


def post(http_addr: str, path: str, form: Sequence[tuple[str, str]]) -> None:
    """POST a form. Raises as :func:`get`, and AnswerError when it is refused."""
    content = urlencode(form)
    check(_request(http_addr, "POST", path, _CHANGE_TIMEOUT_S, content=content))


def delete(
    http_addr: str,
    path: str,
    params: dict[str, str] | None = None,
    timeout_s: float = _CHANGE_TIMEOUT_S,
) -> str:
    """DELETE; what the node says. Raises as :func:`post`."""
    answer = _request(http_addr, "DELETE", path, timeout_s, params=params)
    check(answer)
    return answer.text


def wait(http_addr: str, path: str, timeout_s: float | None) -> str:
    """GET something that may take its time; None: for ever. Raises as :func:`post`."""
    params = None if timeout_s is None else {"timeout": f"{timeout_s:g}"}
    patience_s = None if timeout_s is None else timeout_s + _TIMEOUT_S
    answer = _request(http_addr, "GET", path, patience_s, params=params)
    check(answer)
    return answer.text


def change(
    http_addr: str,
    method: str,
    path: str,
    form: Sequence[tuple[str, str]],
    *,
    patient: bool = False,
) -> str:
    """Send a form by ``method``; the text of the answer. ``patient``: wait for it for ever.

    Raises as :func:`post`.
    """
    timeout_s = None if patient else _CHANGE_TIMEOUT_S
    content = urlencode(form)
    answer = _request(http_addr, method, path, timeout_s, content=content)
    check(answer)
    return answer.text


def change_json(
    http_addr: str,
    method: str,
    path: str,
    body: object = None,
    *,
    query: Sequence[tuple[str, str]] = (),
    patient: bool = False,
) -> Any:
    """Send JSON, or only ask; the answer decoded. ``patient``: wait for it for ever.

    Raises as :func:`post`.
    """
    answer = _request(
        http_addr,
        method,
        path,
        None if patient else _CHANGE_TIMEOUT_S,
        accept="application/json",
        params=tuple(query) or None,
        content=None if body is None else json.dumps(body),
        content_type="application/json",
    )
    check(answer)
    return _decoded(answer)


def report(http_addr: str) -> tuple[str, dict[str, Any]]:
    """The JSON report, as text and decoded. Raises as :func:`post`."""
    answer = get(http_addr, "/report", "application/json")
    check(answer)
    return answer.text, _decoded(answer)


def _decoded(answer: Answer) -> Any:
    try:
        return answer.json()
    except ValueError as err:
        raise AnswerError(f"{OPTION}: the answer is no JSON; is this a weft node?", 200) from err


def check(answer: Answer) -> None:
    """Raise AnswerError, with what the node says, unless it was content."""
    if answer.is_success:
        return
    said = "; ".join(line for line in answer.text.splitlines() if line.strip())
    if answer.status == HTTPStatus.NOT_FOUND:
        said = f"the node does not know {answer.path}"
    raise AnswerError(said or f"the node answered {answer.status}", answer.status)


def _request(
    http_addr: str,
    method: str,
    path: str,
    timeout_s: float | None,
    *,
    accept: str = "text/plain",
    params: dict[str, str] | tuple[tuple[str, str], ...] | None = None,
    content: str | None = None,
    content_type: str = "application/x-www-form-urlencoded",
) -> Answer:
    addresses = parse_http_addrs(http_addr)
    if not addresses:
        raise ConfigError(f"{OPTION}: no address; give that of the node's HTTP API")
    target = f"{path}?{urlencode(params)}" if params else path
    if len(target) > TARGET_LEN_MAX:
        raise ConfigError(f"{path[:64]}: this cannot be asked for: it is too long")
    headers = {"Accept": accept}
    if content is not None:
        headers["Content-Type"] = content_type
    failures = _Failures()
    for address in addresses:
        if isinstance(address, UnixAddr) and not os.path.lexists(address.path):
            # weft launch leaves its lock file beside the socket, until reset or the next boot
            stopped = os.path.lexists(address.path.parent / LOCK_NAME)
            (failures.dead if stopped else failures.absent).append(str(address))
            continue
        try:
            answer = request(
                address.path if isinstance(address, UnixAddr) else str(address),
                method,
                target,
                headers=headers,
                content=content,
                timeout_s=timeout_s,
            )
            if answer.status == HTTPStatus.FORBIDDEN and failures.denied:
                break  # it is for those who may open the socket
            return answer
        except UNREACHED as err:
            denied = "Permission denied" in str(err)
            (failures.denied if denied else failures.dead).append(str(address))
        except CUT_OFF:
            failures.dead.append(str(address))
        except NO_ANSWER as err:
            raise NodeUnreachableError(
                f"{OPTION}: no answer from {address} ({err}); is this a weft node?",
                EXIT_NOT_LAUNCHED,
            ) from err
    raise failures.error(_launcher(addresses))


def _launcher(addresses: Sequence[HttpAddr]) -> str:
    """Who has launched the node and lives, though nothing answers; "" for nobody."""
    for address in addresses:
        if isinstance(address, UnixAddr):
            with suppress(ConfigError):  # for others than root
                pid = RunLock(address.path).holder()
                if pid is not None:
                    return f"process {pid}" if pid > 0 else "in another pid namespace"
    return ""
