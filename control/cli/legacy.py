"""Options of the original that this program has no use for.

Old scripts give them. Those that change nothing here are dropped with one warning; those whose
effect would be missed end the command with a hint, unless they are off: ``--proxy=false``. Names of
hosts (DNS) are among the former until they are served. Switches may say true or false behind a "=",
as those of the original do. Source of truth: node specification 8.
"""

from __future__ import annotations

import sys
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Final

from typer.core import TyperCommand

from base.errors import ConfigError
from control.go_bool import parse_bool


@dataclass(slots=True, frozen=True)
class _Ignored:
    """Why it has no effect, and whether a value belongs to it."""

    why: str
    takes_value: bool = True


_DNS: Final = "names are not served yet"
_OVS: Final = "there is no Open vSwitch here: one bridge with a TAP port"
_DOCKER: Final = "containers are attached by weft attach or CNI; Docker is not asked"
_PLUGIN: Final = "there is no Docker network plugin; attach containers with weft attach"
_PROXY: Final = "there is no Docker proxy; attach containers with weft attach or CNI"
_CLOUD: Final = "there is no hosted discovery; name a peer to connect to"

IGNORED: Final[dict[str, _Ignored]] = {
    "--profile": _Ignored("profiles are taken from outside, such as by perf or py-spy"),
    "--datapath": _Ignored(_OVS),
    "--no-fastdp": _Ignored(_OVS, takes_value=False),
    "--no-bridged-fastdp": _Ignored(_OVS, takes_value=False),
    "--docker-api": _Ignored(_DOCKER),
    "--no-restart": _Ignored("the service manager restarts the node", takes_value=False),
    "--no-dns": _Ignored(_DNS, takes_value=False),
    **dict.fromkeys(
        (
            *("--dns-domain", "--dns-listen-address", "--dns-ttl", "--dns-fallback-timeout"),
            "--resolv-conf",
        ),
        _Ignored(_DNS),
    ),
}

REJECTED: Final[dict[str, str]] = {
    "--awsvpc": "routes of a cloud are not written here; leave it out for an overlay",
    **dict.fromkeys(("--peer-discovery-url", "--token", "--advertise-address"), _CLOUD),
    **dict.fromkeys(
        (
            *("--plugin", "--plugin-v2", "--plugin-v2-multicast", "--plugin-socket"),
            "--plugin-mesh-socket",
        ),
        _PLUGIN,
    ),
    **dict.fromkeys(
        (
            *("--proxy", "-H", "--hostname-from-label", "--hostname-match"),
            *("--hostname-replacement", "--rewrite-inspect", "--no-default-ipalloc"),
            *("--no-rewrite-hosts", "--tls", "--tlscacert", "--tlscert", "--tlskey"),
            *("--tlsverify", "--without-dns", "--no-multicast-route"),
        ),
        _PROXY,
    ),
}


def strip_legacy(
    arguments: Sequence[str], switches: Collection[str] = (), valued: Collection[str] = ()
) -> tuple[list[str], list[str]]:
    """The arguments without ignored options, and a sentence on each of those.

    ``switches`` are names of options that take no value: what is "=false" goes, too. What follows
    one of the ``valued`` is its value, whatever it looks like: if it went, the next would be.

    Raises:
        ConfigError: one of them is rejected.
    """
    kept: list[str] = []
    warnings: list[str] = []
    left = list(arguments)
    while left:
        argument = left.pop(0)
        if argument == "--":
            return [*kept, argument, *left], warnings
        if argument in valued:
            kept += [argument, *left[:1]]
            del left[:1]
            continue
        name, equals, value = argument.partition("=")
        if (hint := REJECTED.get(name)) is not None:
            if equals and (not value or parse_bool(value) is False):
                continue
            raise ConfigError(f"{name}: {hint}")
        if equals and name in switches:
            if (on := parse_bool(value)) is None:
                raise ConfigError(f"{name}: {value!r} is neither true nor false; leave it out")
            kept += [name] if on else []
            continue
        if (ignored := IGNORED.get(name)) is None:
            kept.append(argument)
            continue
        warnings.append(f"{name} has no effect: {ignored.why}")
        if ignored.takes_value and not equals and left and not left[0].startswith("-"):
            left.pop(0)
    return kept, warnings


class LegacyCommand(TyperCommand):
    """A command whose arguments go through :func:`strip_legacy` first."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """As the base does it, with what is left."""
        switches = {name for each in self.params if _is_switch(each) for name in each.opts}
        valued = {name for each in self.params for name in each.opts if name.startswith("-")}
        kept, warnings = strip_legacy(args, switches, valued - switches)
        for warning in warnings:
            print(f"weft: {warning}", file=sys.stderr)
        return super().parse_args(ctx, kept)


def _is_switch(param: Any) -> bool:
    return bool(getattr(param, "is_flag", False))
