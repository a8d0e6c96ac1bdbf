"""Settings of the host that a node needs and does not change by itself.

Source of truth: node specification 2.4 (ip_forward), 14.1.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

_SYS: Final = Path("/proc/sys")
_IP_FORWARD: Final = "net.ipv4.ip_forward"


def sysctl(name: str, root: Path = _SYS) -> str | None:
    """A setting by its dotted name, None where the kernel has none of it."""
    try:
        return Path(root, name.replace(".", "/")).read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return None


def forwards(root: Path = _SYS) -> bool:
    """Whether the host forwards packets between its interfaces."""
    return sysctl(_IP_FORWARD, root) != "0"


def warnings_of(root: Path = _SYS) -> list[str]:
    """What is not as it should be, a sentence each with the remedy."""
    if forwards(root):
        return []
    remedy = f"run 'sysctl -w {_IP_FORWARD}=1'"
    return [f"{_IP_FORWARD} is 0: the host forwards nothing to and from the overlay; {remedy}"]
