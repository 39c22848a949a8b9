"""Reads the facts about a video file: streams, length, frames, bit depth. All functions take an open PyAV container."""

import logging
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from comfy_api.latest._pyav import av

log = logging.getLogger(__name__)

_PROBE_PACKETS = 200


@dataclass(frozen=True, slots=True)
class TrimWindow:
    """The selected part of a source, in seconds; *duration_s* 0 means to the end."""

    start_s: float = 0.0
    duration_s: float = 0.0

    @property
    def end_s(self) -> float | None:
        """Where the part ends, or None for the end of the source."""
        return self.start_s + self.duration_s if self.duration_s else None

    def __bool__(self) -> bool:
        return bool(self.start_s or self.duration_s)


def first_video_stream(container: Any, source: Any) -> Any:
    """The first video stream. Raises ``ValueError``, naming *source*, when there is none."""
    if not container.streams.video:
        raise ValueError(f"No video stream found in file {source!r}")
    return container.streams.video[0]


def last_decodable_audio_stream(container: Any) -> Any:
    """The last sound stream that FFmpeg can decode, or None. It must not touch streams without a decoder, which crash FFmpeg."""
    decodable = [stream for stream in container.streams.audio if stream.codec_context is not None]
    if not decodable and container.streams.audio:
        log.warning("The video's sound is in a format that cannot be decoded; it is left out")
    return decodable[-1] if decodable else None


def bit_depth(stream: Any) -> int:
    """Bits per component of a video stream; 8 if that is unknown or *stream* is None."""
    if stream is None or stream.format is None or not stream.format.components:
        return 8
    return max(component.bits for component in stream.format.components)


def raw_duration_s(container: Any, source: Any) -> float:
    """The whole length in seconds, from the header if it is there, else from the packets. Raises ``ValueError`` when neither has it."""
    if container.duration is not None:
        return float(container.duration / av.time_base)
    stream = next(iter(container.streams.video), None)
    if stream is not None and stream.average_rate:
        frames = stream.frames or sum(1 for packet in container.demux(stream) if packet.size)
        if frames:
            return float(frames / stream.average_rate)
    raise ValueError(f"The duration of {source!r} cannot be determined: its header has none and it has no frames")


def count_frames(container: Any, stream: Any, window: TrimWindow, source: Any) -> int:
    """Count the frames in *window*: by the header's number, its length and rate, or the packets. Raises ``ValueError`` for none."""
    if stream.frames > 0 and not window:
        return int(stream.frames)
    if stream.duration is not None and stream.time_base is not None and stream.average_rate:
        rest_s = float(stream.duration * stream.time_base) - window.start_s
        length_s = min(window.duration_s, rest_s) if window.duration_s else rest_s
        estimate = round(length_s * float(stream.average_rate))
        if estimate > 0:
            return estimate
    container.seek(int(window.start_s / stream.time_base), stream=stream)
    times = (packet.pts * stream.time_base for packet in container.demux(stream) if packet.pts is not None)
    frames = sum(1 for time in times if time >= window.start_s and (window.end_s is None or time < window.end_s))
    if not frames:
        raise ValueError(f"There are no frames in {source!r} from {window.start_s} s on")
    return frames


def frame_rate(container: Any, stream: Any) -> Fraction:
    """The average number of frames per second; 1 if the file does not say."""
    if stream.average_rate:
        return Fraction(stream.average_rate)
    if stream.frames and container.duration:
        return Fraction(stream.frames / float(container.duration / av.time_base)).limit_denominator()
    return Fraction(1)


@dataclass(frozen=True, slots=True)
class AudioFormat:
    """Samples per second and channels of a sound stream."""

    rate_hz: int
    channels: int

    @property
    def layout(self) -> str:
        """The speaker layout to encode with."""
        return {1: "mono", 2: "stereo", 6: "5.1"}.get(self.channels, "stereo")


def audio_format(container: Any, stream: Any) -> AudioFormat | None:
    """The format of a sound stream, or None if no frame can be decoded.

    If the header lacks it, because the sound starts late, this decodes ahead; the caller must then seek back.
    """
    context = stream.codec_context
    if context.sample_rate:
        return AudioFormat(context.sample_rate, context.channels)
    for number, packet in enumerate(container.demux(stream)):
        try:
            frames = packet.decode()
        except av.error.FFmpegError:
            frames = []
        if frames:
            return AudioFormat(frames[0].sample_rate, frames[0].layout.nb_channels)
        if number >= _PROBE_PACKETS:
            break
    log.warning("The format of the video's sound cannot be determined; it is left out")
    return None
