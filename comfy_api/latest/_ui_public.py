"""Everything public in ``comfy_api.latest.ui``, under its older module name."""

from ._ui import *  # noqa: F403
