"""Values that nodes pass on: 3D shapes and files, vector images, parts of videos."""

from .geometry_types import MESH, SPLAT, VOXEL, File3D
from .image_types import SVG
from .video_types import VideoCodec, VideoComponents, VideoContainer

__all__ = ["MESH", "SPLAT", "SVG", "VOXEL", "File3D", "VideoCodec", "VideoComponents", "VideoContainer"]
