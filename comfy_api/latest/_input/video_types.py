"""The interface of every video, wherever it comes from."""

from abc import ABC, abstractmethod
from fractions import Fraction
from io import BytesIO
from typing import IO

from comfy_api.latest._util.video_opening import open_video
from comfy_api.latest._util.video_types import VideoCodec, VideoComponents, VideoContainer


class VideoInput(ABC):
    """A video that nodes pass on. Times are in seconds; frames are decoded only where a method says so."""

    @abstractmethod
    def get_components(self) -> VideoComponents:
        """The decoded frames and sound."""

    @abstractmethod
    def save_to(
        self,
        path: str | IO[bytes],
        format: VideoContainer = VideoContainer.AUTO,
        codec: VideoCodec = VideoCodec.AUTO,
        metadata: dict | None = None,
        bit_depth: int | None = None,
        crf: float | None = None,
        color_space: str | None = None,
    ) -> None:
        """Write the video to a path or binary stream.

        *metadata* becomes tags (values as JSON). With *bit_depth* None the video keeps its own; *crf* is the encoder's constant rate
        factor, None for its default. *color_space* is "sRGB", "HDR" (hybrid log-gamma) or "HDR PQ" and says what the pixels are:
        they are not converted. None keeps that of a file, and means sRGB for tensors.
        """

    def get_color_space(self) -> str:
        """One of "sRGB", "HDR", "HDR PQ", or "auto" if it is not known."""
        return "auto"

    @abstractmethod
    def as_trimmed(
        self, start_time: float | None = None, duration: float | None = None, strict_duration: bool = False
    ) -> "VideoInput | None":
        """The part from *start_time* for *duration* (0: to the end). None if *strict_duration* and the video ends before that."""

    def get_stream_source(self) -> str | BytesIO:
        """A path or stream from which the video can be decoded piece by piece. The base class encodes the video into memory."""
        buffer = BytesIO()
        self.save_to(buffer)
        buffer.seek(0)
        return buffer

    def get_active_trim_window(self) -> tuple[float, float]:
        """The selected part of the source: its start, and its length or 0 for everything after the start."""
        return 0.0, 0.0

    def get_dimensions(self) -> tuple[int, int]:
        """Width and height in pixels. The base class decodes the video."""
        height, width = self.get_components().images.shape[1:3]
        return width, height

    def get_bit_depth(self) -> int:
        """Bits per colour component of the encoded video."""
        return 8

    def get_frame_count(self) -> int:
        """The number of frames. The base class decodes the video."""
        return int(self.get_components().images.shape[0])

    def get_frame_rate(self) -> Fraction:
        """Frames per second. The base class decodes the video."""
        return self.get_components().frame_rate

    def get_duration(self) -> float:
        """The length in seconds. The base class decodes the video."""
        components = self.get_components()
        return float(components.images.shape[0] / components.frame_rate)

    def get_container_format(self) -> str:
        """The container's name as FFmpeg reports it, such as ``mov,mp4,m4a,3gp,3g2,mj2``."""
        with open_video(self.get_stream_source()) as container:
            return container.format.name
