"""Runs ``nft``: one transaction, one listing. The only place that starts it.

A listing is compared as a *fingerprint*: what the kernel holds, without handles and counters, in
the words of the nft that is installed here. It is taken after each of our own transactions, so no
knowledge of how a version of nft prints a rule is needed.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, summarize_address_range
from typing import Any, Final

import anyio.to_thread

from base.errors import NftError
from control.host.ruleset import Command

_TIMEOUT_S: Final = 20.0
_STDERR_LEN_MAX: Final = 400
_VOLATILE: Final = frozenset({"handle", "packets", "bytes", "index", "position"})
_NAME: Final = "nft"

#: Objects of one table, as nft lists them: one-key dictionaries of kind → content.
Listing = list[dict[str, Any]]


async def run_tool(argv: Sequence[str], content: str = "") -> tuple[int, str, str]:
    """Run a short tool to its end; exit status, standard output and error.

    Cancellation waits for it: a transaction is carried out or not, and we know which.

    Raises:
        NftError: it is missing or takes too long.
    """
    return await anyio.to_thread.run_sync(_run, argv, content)


def _run(argv: Sequence[str], content: str) -> tuple[int, str, str]:
    # In a thread, by vfork: 2 ms. uvloop forks instead, which took 34 ms with control at 150 MB and
    # stopped the loop for as long.
    try:
        done = subprocess.run(
            argv,
            input=content.encode(),
            capture_output=True,
            check=False,
            env=os.environ | {"LC_ALL": "C"},
            timeout=_TIMEOUT_S,
        )
    except FileNotFoundError as err:
        raise NftError("run", argv[0], f"not found; install {argv[0]}", err.errno or 0) from err
    except OSError as err:
        raise NftError("run", argv[0], err.strerror or str(err), err.errno or 0) from err
    except subprocess.TimeoutExpired as err:
        raise NftError("run", argv[0], f"no end after {_TIMEOUT_S:.0f} s") from err
    stdout, stderr = (each.decode("utf-8", "replace") for each in (done.stdout, done.stderr))
    return done.returncode, stdout, stderr


def have_nft() -> bool:
    """Whether the tool is installed."""
    return shutil.which(_NAME) is not None


async def transact(commands: Sequence[Command]) -> None:
    """Carry out all commands, or none.

    Raises:
        NftError: the kernel or nft refused; nothing has changed.
    """
    if not commands:
        return
    argv = (_NAME, "-j", "-f", "-")
    status, _, stderr = await run_tool(argv, json.dumps({"nftables": list(commands)}))
    if status != 0:
        raise NftError("change", "nftables", _reason(stderr))


async def list_table(family: str, name: str) -> Listing | None:
    """All of one table, None if there is none.

    Raises:
        NftError: nft failed.
    """
    found = await _list("list", "table", family, name)
    return None if found is None else found


async def list_chains() -> Listing:
    """Every chain of every family.

    Raises:
        NftError: nft failed.
    """
    return await _list("list", "chains") or []


async def list_chain(family: str, table: str, name: str) -> Listing:
    """One chain and its rules; empty if there is none.

    Raises:
        NftError: nft failed.
    """
    return await _list("list", "chain", family, table, name) or []


async def _list(*words: str) -> Listing | None:
    status, stdout, stderr = await run_tool((_NAME, "-j", *words))
    if status != 0:
        if "No such file or directory" in stderr:
            return None
        raise NftError("list", "nftables", _reason(stderr))
    if not stdout.strip():
        return []
    try:
        objects = json.loads(stdout)["nftables"]
    except (ValueError, KeyError, TypeError) as err:
        raise NftError("list", "nftables", "the answer is no JSON listing") from err
    return [each for each in objects if "metainfo" not in each]


def fingerprint(listing: Listing | None) -> str | None:
    """What of a listing has to stay the same; None for no table. Order of set elements is none."""
    return None if listing is None else json.dumps(_plain(listing), sort_keys=True)


def comments(listing: Listing | None) -> list[tuple[str, str]]:
    """(chain, comment) of every rule, in order."""
    return [
        (rule["chain"], rule.get("comment", ""))
        for each in listing or ()
        if (rule := each.get("rule")) is not None
    ]


def wanted_comments(commands: Sequence[Command]) -> list[tuple[str, str]]:
    """What :func:`comments` has to find after these commands."""
    return comments([each["add"] for each in commands if "add" in each])


def elements(listing: Listing | None, name: str) -> list[Any]:
    """Elements of one set of a listed table."""
    for each in listing or ():
        if (found := each.get("set")) is not None and found["name"] == name:
            return list(found.get("elem", ()))
    return []


def networks(listing: Listing | None, name: str) -> list[IPv4Network]:
    """Elements of one set of addresses with intervals, as networks."""
    found: list[IPv4Network] = []
    for each in elements(listing, name):
        if isinstance(each, str):
            found.append(IPv4Network(each))
        elif "prefix" in each:
            found.append(IPv4Network((each["prefix"]["addr"], each["prefix"]["len"])))
        else:
            first, last = (IPv4Address(end) for end in each["range"])
            found += summarize_address_range(first, last)
    return found


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        plain = {key: _plain(each) for key, each in value.items() if key not in _VOLATILE}
        if "elem" in plain:
            plain["elem"] = sorted(json.dumps(each, sort_keys=True) for each in plain["elem"])
        return plain
    return [_plain(each) for each in value] if isinstance(value, list) else value


def _reason(stderr: str) -> str:
    """The first complaint, on one line."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    first = next((line for line in lines if "rror" in line), lines[0] if lines else "no reason")
    if "Operation not permitted" in stderr:
        first = "permission denied; run as root"
    return first[:_STDERR_LEN_MAX]
