"""Where the deployment's password comes from. Its bytes go into session keys as they are.

First that is there: ``--password-file``; the variable WEAVE_PASSWORD; a systemd credential called
``weave-password``. An empty variable means no password, as it always has; an empty file is an
error, for nobody writes one on purpose. Nothing here logs, prints or puts the password into a
message. Source of truth: mesh specification 4.1, node specification 8 and 15.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping, MutableMapping
from pathlib import Path
from typing import Final, NamedTuple

from base.errors import ConfigError

VARIABLE: Final = "WEAVE_PASSWORD"
CREDENTIAL: Final = "weave-password"
#: Of a file. A cluster that has a shorter one already can be joined by the variable.
LENGTH_MIN: Final = 8
_LENGTH_MAX: Final = 4096

NO_PASSWORD: Final = (
    "no password: whoever reaches the port can join, read and change everything; "
    "give --password-file"
)


class Password(NamedTuple):
    """The password, None for none, and what the operator should be told."""

    value: bytes | None
    warnings: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"Password({'set' if self.value else 'none'}, {self.warnings!r})"


def take_password(file: Path | None, environ: MutableMapping[str, str]) -> Password:
    """As :func:`find_password`; afterwards no program that we run gets the variable."""
    try:
        return find_password(file, environ)
    finally:
        environ.pop(VARIABLE, None)


def find_password(file: Path | None, environ: Mapping[str, str]) -> Password:
    """The password by the rules above.

    Raises:
        ConfigError: the file cannot be read, or holds no usable password.
    """
    if file is not None:
        return _read(file, "--password-file", shared=_shared(file))
    text = environ.get(VARIABLE, "")
    if text:
        value = os.fsencode(text)
        short = len(value) < LENGTH_MIN
        warning = f"{VARIABLE} is shorter than {LENGTH_MIN} bytes, which is easily guessed"
        return Password(value, (warning,) if short else ())
    folder = environ.get("CREDENTIALS_DIRECTORY", "")
    if folder and (credential := Path(folder, CREDENTIAL)).exists():
        return _read(credential, f"credential {CREDENTIAL}", shared=False)
    return Password(None, (NO_PASSWORD,))


def _shared(file: Path) -> bool:
    """Whether others than its owner can read the file."""
    try:
        return bool(stat.S_IMODE(file.stat().st_mode) & (stat.S_IRGRP | stat.S_IROTH))
    except OSError:
        return False  # reading it will tell


def _read(file: Path, source: str, *, shared: bool) -> Password:
    try:
        with file.open("rb") as opened:
            value = opened.read(_LENGTH_MAX + 1)
    except OSError as err:
        raise ConfigError(f"{source}: cannot read {file}: {err.strerror}") from err
    value = value.removesuffix(b"\n").removesuffix(b"\r")
    if not value:
        raise ConfigError(f"{source}: {file} is empty; write the password into it")
    if b"\0" in value or b"\n" in value:
        raise ConfigError(f"{source}: {file} is not one line of text; write only the password")
    if len(value) < LENGTH_MIN:
        raise ConfigError(
            f"{source}: the password in {file} is shorter than {LENGTH_MIN} bytes; take a longer "
            f"one, or join a cluster that has it by the variable {VARIABLE}"
        )
    if len(value) > _LENGTH_MAX:
        raise ConfigError(f"{source}: {file} is longer than {_LENGTH_MAX} bytes")
    warning = f"{file} can be read by others; chmod 600 {file}"
    return Password(value, (warning,) if shared else ())
