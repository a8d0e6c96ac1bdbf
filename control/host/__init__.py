"""What the node changes on its host: packet filter, addresses of the bridge, checks, clean-up.

Everything here works on the network namespace that it runs in. :class:`control.host.service`
ties it together for the daemon. Source of truth: node specification 2, 4, 5, 6.1a, 7 and 10.
"""
