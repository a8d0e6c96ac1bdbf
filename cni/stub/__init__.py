"""The executable that a container runtime calls: C source and how it is built."""
