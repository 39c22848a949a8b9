"""Video formats, at their older import place."""

from comfy_api.latest._util.video_types import VideoCodec, VideoComponents, VideoContainer

__all__ = ["VideoCodec", "VideoComponents", "VideoContainer"]
