"""Everything public in ``comfy_api.latest.io``, under its older module name."""

from ._io import *  # noqa: F403
