"""The older import path of the video classes and of the functions that choose how a file is opened."""

from comfy_api.latest._input_impl.video_types import VideoFromComponents, VideoFromFile, container_to_output_format, get_open_write_kwargs

__all__ = ["VideoFromComponents", "VideoFromFile", "container_to_output_format", "get_open_write_kwargs"]
