"""Videos from files and from tensors."""

import logging
from contextlib import AbstractContextManager
from fractions import Fraction
from io import BytesIO
from typing import IO, Any

from comfy.interruption import interrupt_flag
from comfy_api.latest._input.video_types import VideoInput
from comfy_api.latest._pyav import av
from comfy_api.latest._util.video_opening import open_video
from comfy_api.latest._util.video_types import VideoCodec, VideoComponents, VideoContainer

from . import video_probe as probe
from .video_colours import SRGB, colour_space, space_of_stream
from .video_decode import decode_components
from .video_encode import bits_for, encode_components
from .video_output import (
    Encoding,
    container_names,
    container_to_output_format,
    encoding_for,
    fits_webm,
    get_open_write_kwargs,
    write_tags,
    written_whole,
)
from .video_transcode import OutputForm, Transcoder

__all__ = ["VideoFromComponents", "VideoFromFile", "container_to_output_format", "get_open_write_kwargs"]

log = logging.getLogger(__name__)


class VideoFromFile(VideoInput):
    """A video in a file: a path, or a ``BytesIO`` with its content. Nothing is decoded before a method needs it.

    *start_time* and *duration* (seconds, 0: to the end) select a part; a negative start counts from the end. Methods raise
    ``ValueError`` when the file has no video stream, and PyAV's errors when it is not a video.
    """

    def __init__(self, file: str | BytesIO, *, start_time: float = 0, duration: float = 0) -> None:
        self._file = file
        self._start_time = start_time
        self._duration = duration

    def get_stream_source(self) -> str | BytesIO:
        """The path, or the stream at its beginning."""
        if isinstance(self._file, BytesIO):
            self._file.seek(0)
        return self._file

    def _open(self) -> AbstractContextManager[Any]:
        return open_video(self.get_stream_source())

    def _window(self) -> probe.TrimWindow:
        start_s = float(self._start_time)
        if start_s < 0:
            start_s = max(self._raw_duration() + start_s, 0.0)
        return probe.TrimWindow(start_s, float(self._duration))

    def _raw_duration(self) -> float:
        with self._open() as container:
            return probe.raw_duration_s(container, self._file)

    def get_active_trim_window(self) -> tuple[float, float]:
        """The selected part: start and length in seconds; the length is 0 for the rest of the file."""
        window = self._window()
        return window.start_s, window.duration_s

    def get_dimensions(self) -> tuple[int, int]:
        """Width and height as stored."""
        with self._open() as container:
            stream = probe.first_video_stream(container, self._file)
            return stream.width, stream.height

    def get_bit_depth(self) -> int:
        """Bits per component of the stored frames."""
        with self._open() as container:
            return probe.bit_depth(next(iter(container.streams.video), None))

    def get_color_space(self) -> str:
        """One of "sRGB", "HDR" and "HDR PQ", by the transfer function in the header; "sRGB" if that has none."""
        with self._open() as container:
            return (space_of_stream(next(iter(container.streams.video), None)) or SRGB).name

    def get_container_format(self) -> str:
        """The container's name as FFmpeg reports it, such as ``mov,mp4,m4a,3gp,3g2,mj2``."""
        with self._open() as container:
            return str(container.format.name)

    def get_duration(self) -> float:
        """The selected part's length in seconds."""
        rest_s = self._raw_duration() - self._window().start_s
        return min(float(self._duration), rest_s) if self._duration else rest_s

    def get_frame_count(self) -> int:
        """The number of frames in the selected part, from the header if that suffices."""
        window = self._window()
        with self._open() as container:
            return probe.count_frames(container, probe.first_video_stream(container, self._file), window, self._file)

    def get_frame_rate(self) -> Fraction:
        """Frames per second on average."""
        with self._open() as container:
            return probe.frame_rate(container, probe.first_video_stream(container, self._file))

    def get_components(self) -> VideoComponents:
        """The decoded frames and sound of the selected part."""
        window = self._window()
        with self._open() as container:
            return decode_components(container, window, self._file)

    def as_trimmed(self, start_time: float | None = 0, duration: float | None = 0, strict_duration: bool = True) -> VideoInput | None:
        """A part of this part; None if *strict_duration* and it would be too short. Both share the file."""
        start_s, length_s = float(start_time or 0), float(duration or 0)
        trimmed = VideoFromFile(self.get_stream_source(), start_time=start_s + self._start_time, duration=length_s)
        return None if strict_duration and trimmed.get_duration() < length_s else trimmed

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
        """Write the selected part: the unchanged streams unless an argument asks for another encoding.

        The file then appears whole or not at all. Raises ``ValueError`` when the file is in another colour space than the asked-for one.
        """
        space, encoding = colour_space(color_space), encoding_for(path, format, codec)
        with self._open() as container:
            stream = next(iter(container.streams.video), None)
            own = space_of_stream(stream)
            if own is not None and space is not None and own != space:
                raise ValueError(
                    f"the video is in the color space {own.name} and is not converted to {space.name}; choose auto or {own.name}"
                )
            changes = crf is not None or space is not None or bool(self._start_time or self._duration)
            if not changes and self._can_copy(container, stream, encoding, format, codec, bit_depth):
                _copy_streams(container, path, format, metadata)
            else:
                bits = probe.bit_depth(stream) if bit_depth is None else bit_depth
                form = OutputForm(encoding, bits, crf, space)
                Transcoder(container, self._window(), path, form, metadata, self._file).run()

    def _can_copy(self, container: Any, stream: Any, encoding: Encoding, format: str, codec: str, bit_depth: int | None) -> bool:
        if format != VideoContainer.AUTO and container_names(format) not in container.format.name.split(","):
            return False
        if encoding.container is VideoContainer.WEBM and not fits_webm(container.streams):
            return False
        if stream is None:
            return True
        same_codec = codec == VideoCodec.AUTO or VideoCodec(codec).value == stream.codec.canonical_name
        return same_codec and bit_depth in (None, probe.bit_depth(stream))


def _copy_streams(container: Any, path: Any, format: VideoContainer, metadata: dict | None) -> None:
    """Copy the packets of every stream; streams without a known codec are left out."""
    arguments = get_open_write_kwargs(path, container.format.name, format)
    with written_whole(path) as target, av.open(target, **arguments) as output:
        write_tags(output, metadata, container.metadata)
        copies = {}
        for stream in container.streams:
            if stream.type not in ("video", "audio", "subtitle"):
                continue
            if stream.codec_context is None:
                log.warning("The video's %s stream %d has an unknown codec and is left out", stream.type, stream.index)
            else:
                copies[stream] = output.add_stream_from_template(template=stream, opaque=True)
        for packet in container.demux():
            interrupt_flag.raise_if_set()
            if packet.stream in copies and packet.dts is not None:
                packet.stream = copies[packet.stream]
                output.mux(packet)


class VideoFromComponents(VideoInput):
    """A video of tensors. It is encoded with *bit_depth*, as being in *color_space*, unless saving asks for others.

    Raises ``ValueError`` for a colour space that videos are not saved in.
    """

    def __init__(self, components: VideoComponents, bit_depth: int = 8, color_space: str = SRGB.name) -> None:
        self._components = components
        self._bit_depth = bit_depth
        self._space = colour_space(color_space) or SRGB

    def get_components(self) -> VideoComponents:
        """The tensors themselves, not copies."""
        held = self._components
        return VideoComponents(images=held.images, audio=held.audio, frame_rate=held.frame_rate, alpha=held.alpha)

    def get_bit_depth(self) -> int:
        """Bits per component when encoded."""
        return self._bit_depth

    def get_color_space(self) -> str:
        """What the tensors are saved as unless saving says otherwise."""
        return self._space.name

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
        """Encode frame by frame; *color_space* says what the pixels are (None: what this video says)."""
        bits = self._bit_depth if bit_depth is None else bit_depth
        asked = colour_space(color_space)
        encoding, space = encoding_for(path, format, codec), asked or self._space
        if asked is not None:  # whoever made the video did not know of it when they chose the bits
            bits = bits_for(bits, asked)
        encode_components(self._components, path, encoding, metadata, bits, crf, space)

    def as_trimmed(self, start_time: float | None = 0, duration: float | None = 0, strict_duration: bool = True) -> VideoInput | None:
        """A part of this video, encoded in memory; None if it would be too short."""
        start_s, length_s = float(start_time or 0), float(duration or 0)
        if self.get_duration() < start_s + length_s:
            return None
        return VideoFromFile(self.get_stream_source(), start_time=start_s, duration=length_s)
