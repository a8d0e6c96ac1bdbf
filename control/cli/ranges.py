"""The range to allocate from, looked at beside what this host has routes to.

The default range is nobody's choice, so one that overlaps ends the start; a range that the user
gave is taken with a warning, as the original does. Source of truth: node specification 10.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from ipaddress import IPv4Network

from base.errors import ConfigError, PlatformError
from base.log import kv
from control.host.overlap import OverlapError, check_range, host_routes
from control.ipam_settings import DEFAULT_RANGE

log = logging.getLogger(__name__)


def settle_range(given: str | None, bridge: str, allowed: Sequence[str]) -> str:
    """The text of ``--ipalloc-range``, the default if ``given`` is None. Blocking, no event loop.

    Routes over ``bridge`` are ours, those inside of ``allowed`` are accepted.

    Raises:
        ConfigError: the default overlaps, or one of ``allowed`` is no network.
    """
    text = DEFAULT_RANGE if given is None else given
    try:
        network = IPv4Network(text)
    except ValueError:
        return text  # "" or an error, which is told where it is parsed
    try:
        check_range(network, host_routes((bridge,)), [_network(each) for each in allowed])
    except OverlapError as err:
        if given is None:
            raise
        log.warning("the range overlaps", extra=kv(reason=err))
    except PlatformError as err:
        log.warning("overlaps not looked for: routes cannot be read", extra=kv(err=err))
    return text


def _network(text: str) -> IPv4Network:
    try:
        return IPv4Network(text)
    except ValueError as err:
        raise ConfigError(f"--allow-overlap: {err}") from err
