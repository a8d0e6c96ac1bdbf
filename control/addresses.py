"""What the rest of control needs of address allocation: one small face, whoever is behind it.

An *ident* names what an address is for: a container's id, ``weave:expose`` for the bridge itself,
or ``_`` for nobody in particular; a record of ``_`` is filed under its address as text. Addresses
travel with their prefix length (:class:`ipaddress.IPv4Interface`), subnets as networks.

Whatever a call has changed is on the disk when it returns. Cancelling the task that waits in a call
withdraws the request and leaves no record of it, unless it had been granted already.

Source of truth: ipam specification 6 and 11.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from typing import Final, Protocol

#: The bridge's own addresses.
EXPOSE_IDENT: Final = "weave:expose"
#: Nobody in particular.
ANONYMOUS_IDENT: Final = "_"


class Addresses(Protocol):
    """Allocation from one range; what changes something may raise NotStoredError (disk full).

    ``universe`` is the range of the whole network; ``default_subnet`` is used where none is given.
    """

    @property
    def universe(self) -> IPv4Network:
        """All addresses that peers divide among themselves."""

    @property
    def default_subnet(self) -> IPv4Network:
        """Where addresses come from when nobody names a subnet; it overlaps the universe."""

    async def allocate(
        self,
        ident: str,
        subnet: IPv4Network | None = None,
        *,
        is_container: bool = False,
        timeout_s: float | None = None,
    ) -> IPv4Interface:
        """The address of ``ident`` in ``subnet``: the one it has, or a new one.

        Waits for consensus and for space from other peers, for ever or for ``timeout_s``.
        ``is_container``: the record ends when the container is reported dead.

        Raises:
            OutOfBoundsError: the subnet is outside the universe.
            NoAddressError: nothing came within ``timeout_s``.
            RequestCancelledError: its container died, or IPAM was shut down.
        """

    async def claim(
        self,
        ident: str,
        cidr: IPv4Interface,
        *,
        is_container: bool = False,
        no_error_on_unknown: bool = False,
    ) -> None:
        """Record that ``ident`` uses this very address, in the universe or not.

        ``no_error_on_unknown``: return at once where its owner is not known or cannot be reached,
        and go on trying.

        Raises:
            ClaimConflictError: another uses it, here or at its owner.
            NoAddressError: its owner cannot be asked.
            RequestCancelledError: as for :meth:`allocate`.
        """

    async def lookup(self, ident: str, subnet: IPv4Network | None = None) -> list[IPv4Interface]:
        """Addresses of ``ident`` in the subnet, edges left out; never waits."""

    async def free(self, ident: str, address: IPv4Address) -> None:
        """Give one address back.

        Raises:
            NotHeldError: it is not recorded under ``ident``.
        """

    async def delete(self, ident: str) -> None:
        """Give back all addresses of ``ident``.

        Raises:
            NotHeldError: there are none.
        """
