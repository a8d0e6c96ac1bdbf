"""Why a container cannot be attached, told apart as far as callers answer differently.

What the kernel refuses without one of these reasons is a plain :class:`base.errors.NetlinkError`.
"""

from __future__ import annotations

from base.errors import ConfigError, PlatformError


class NetnsError(ConfigError):
    """What was named is no network namespace that a container could have."""


class NetnsGoneError(PlatformError):
    """The namespace, or the process that was to show it, is not there (any more)."""


class BridgeMissingError(PlatformError):
    """There is no such bridge."""


class InterfaceExistsError(PlatformError):
    """An interface of that name exists and is not the one that we made for this container."""
