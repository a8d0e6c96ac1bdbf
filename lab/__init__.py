"""Hosts in network namespaces, for the demo, the benchmarks and tests on the real kernel.

Starts ``weft`` as a user would and imports nothing of it but ``base``. Begin with lab/lab.py.
"""
