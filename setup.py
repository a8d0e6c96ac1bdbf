"""Only what pyproject.toml cannot say yet: the cffi module."""

from setuptools import setup

setup(cffi_modules=["native/build.py:ffibuilder"])
