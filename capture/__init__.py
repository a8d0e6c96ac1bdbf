"""Frames in and out of the kernel. Knows Ethernet and devices, not peers."""
