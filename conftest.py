"""What holds for all tests: compiled modules are kept, long ones run when asked for, and collections of garbage are short."""

import gc
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


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave tests marked ``long`` out unless ``-m`` names the mark."""
    if "long" not in (config.option.markexpr or ""):
        for item in items:
            if item.get_closest_marker("long"):
                item.add_marker(pytest.mark.skip(reason="runs only when asked for: -m long"))


def pytest_collection_finish() -> None:
    """Garbage collections look at what tests make, and not at what was imported and collected for them again and again."""
    gc.collect()
    gc.freeze()
