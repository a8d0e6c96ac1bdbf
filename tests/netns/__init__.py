"""Running systems on the real kernel: routers as a user starts them, traffic that checks itself.

Needs root. Everything happens in namespaces of a lab (see lab/lab.py); every test has a time limit.
"""
