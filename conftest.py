"""What holds for all tests: compiled modules are kept."""

import os
import sys

import pytest


@pytest.hookimpl(tryfirst=True)
def pytest_configure() -> None:
    """Keep compiled modules, also where the environment, as container images do, says not to.

    Every server and subprocess would compile the whole project again: two thirds of the processor time of a test server's start.
    """
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    sys.dont_write_bytecode = False
