"""Only what pyproject.toml cannot say yet: the cffi module, and the stub to be compiled."""

import subprocess
import sys

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildStub(build_py):
    """Compiles the stub before the files of the packages are gathered."""

    def run(self) -> None:
        """Run the command."""
        subprocess.run([sys.executable, "cni/stub/build.py"], check=True)
        super().run()


setup(cffi_modules=["native/build.py:ffibuilder"], cmdclass={"build_py": BuildStub})
