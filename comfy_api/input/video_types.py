"""Videos, at their older import place."""

from comfy_api.latest._input.video_types import VideoInput

__all__ = ["VideoInput"]
