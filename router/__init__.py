"""The router process: moves frames between the bridge and other peers.

It gets everything it must know over the control link and keeps moving frames when that is gone.
"""
