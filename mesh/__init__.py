"""Topology of the mesh of peers. No datagram path, no sockets."""
