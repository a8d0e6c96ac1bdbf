"""Keys and boxes for what leaves this node; no sockets, no peers."""
