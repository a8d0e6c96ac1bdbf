"""The version of what runs here."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version


def weft_version() -> str:
    """Version of the installed distribution; "unknown" from a bare checkout."""
    try:
        return version("weftnet")
    except PackageNotFoundError:
        return "unknown"
