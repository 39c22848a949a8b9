"""Whether Ray is there; imports nothing of it."""

import importlib.util


def is_installed() -> bool:
    """Whether Ray can be imported."""
    return importlib.util.find_spec("ray") is not None
