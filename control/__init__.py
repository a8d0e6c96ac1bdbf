"""Control: membership, routes, HTTP API, command line. Holds no frame and no datagram."""
