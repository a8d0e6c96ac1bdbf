"""Names of devices that routers make on a host: ours, and Weave Net's before us."""

from __future__ import annotations

from typing import Final

PORT: Final = "vethwe-bridge"
#: Other end of the port with a packet capture, ours or Weave Net's.
PACKET_END: Final = "vethwe-pcap"
#: Weave Net's, of Open vSwitch.
FAST_DATAPATH: Final = "datapath"
