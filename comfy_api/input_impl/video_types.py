"""Video classes and the functions that choose how a file is opened, at their older import place."""

from comfy_api.latest._input_impl.video_types import VideoFromComponents, VideoFromFile, container_to_output_format, get_open_write_kwargs

__all__ = ["VideoFromComponents", "VideoFromFile", "container_to_output_format", "get_open_write_kwargs"]
