"""The older import path of videos."""

from comfy_api.latest._input.video_types import VideoInput

__all__ = ["VideoInput"]
