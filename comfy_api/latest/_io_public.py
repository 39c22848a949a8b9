"""The older module name of ``comfy_api.latest.io``."""

from ._io import *  # noqa: F403
