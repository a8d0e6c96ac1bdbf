"""The container network interface: its shapes (sans-IO), our host-local IPAM, the stub's source."""
