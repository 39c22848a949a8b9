"""The parts of a video, and the formats in which videos are saved."""

from dataclasses import dataclass
from enum import Enum
from fractions import Fraction

from comfy_api.latest._tensor_type import Tensor


class VideoCodec(str, Enum):  # noqa: UP042 - printed as a plain string
    """The compression of frames; AUTO keeps that of the source."""

    AUTO = "auto"
    H264 = "h264"
    AV1 = "av1"

    @classmethod
    def as_input(cls) -> list[str]:
        """The names, for a combo."""
        return [codec.value for codec in cls]


class VideoContainer(str, Enum):  # noqa: UP042
    """The file format; AUTO keeps that of the source, or means MP4."""

    AUTO = "auto"
    MP4 = "mp4"
    MKV = "mkv"
    WEBM = "webm"

    @classmethod
    def as_input(cls) -> list[str]:
        """The names, for a combo."""
        return [container.value for container in cls]

    @classmethod
    def get_extension(cls, value: "VideoContainer | str") -> str:
        """The file name extension for *value*, a member or its name. Raises ``ValueError`` for an unknown name."""
        container = cls(value)
        return "mp4" if container is cls.AUTO else container.value


@dataclass
class VideoComponents:
    """A decoded video: frames [frame, height, width, channel], frames per second, and optionally sound, tags and a mask per frame."""

    images: Tensor
    frame_rate: Fraction
    audio: dict | None = None
    metadata: dict | None = None
    alpha: Tensor | None = None
