"""The older module name of ``comfy_api.latest.ui``."""

from ._ui import *  # noqa: F403
