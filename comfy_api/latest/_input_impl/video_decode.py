"""Decodes a video file into tensors."""

import logging
import math
from typing import Any, Final

from comfy.images.picture_files import SHARE_OF_FREE_RAM
from comfy.interruption import interrupt_flag
from comfy.lazy_import import lazy_module
from comfy.ram_model_cache.host_memory import HostMemory
from comfy.units import MIB
from comfy_api.latest._pyav import av
from comfy_api.latest._util.video_types import VideoComponents

from .video_probe import TrimWindow, first_video_stream, frame_rate, last_decodable_audio_stream

np = lazy_module("numpy")
torch = lazy_module("torch")
log = logging.getLogger(__name__)

# Pixel formats that fit into 8-bit full-range RGB without loss; all others are converted to float planes.
_EIGHT_BIT_FORMATS: Final = ("yuvj420p", "yuvj422p", "yuvj444p", "rgb24", "rgba", "pal8")
_ALIGNMENT = 32


class _Aligner:
    """Pads frames to a multiple of 32 pixels by repeating their border.

    FFmpeg's conversion to float reads past the end of rows of other widths, so the last columns would differ from run to run.
    """

    def __init__(self, frame: Any, time_base: Any) -> None:
        width, height = (-(-side // _ALIGNMENT) * _ALIGNMENT for side in (frame.width, frame.height))
        self.graph = av.filter.Graph()
        self.source = self.graph.add_buffer(width=frame.width, height=frame.height, format=frame.format.name, time_base=time_base)
        pad = self.graph.add("pad", f"{width}:{height}:0:0")
        smear = self.graph.add("fillborders", f"left=0:right={width - frame.width}:top=0:bottom={height - frame.height}:mode=smear")
        self.sink = self.graph.add("buffersink")
        for first, second in ((self.source, pad), (pad, smear), (smear, self.sink)):
            first.link_to(second)
        self.graph.configure()

    def to_ndarray(self, frame: Any, format: str) -> Any:
        """The frame's pixels in *format*, without the padding."""
        self.source.push(frame)
        return np.ascontiguousarray(self.sink.pull().to_ndarray(format=format)[: frame.height, : frame.width])


class _FrameCollector:
    """Converts frames to one array, all in the format that suits the first one.

    *expected* frames get their place at once, so that no second copy of all is made; more are taken as well. Raises ``ValueError``,
    naming *source*, before the frames take more than their share of the RAM that is free, and when their size changes.
    """

    def __init__(self, time_base: Any, expected: int, source: Any) -> None:
        self.time_base = time_base
        self.expected = max(expected, 1)
        self.source = source
        self.frames_FHWC: Any = None
        self.count = 0
        self.format: str | None = None
        self.has_alpha = False
        self.aligner: _Aligner | None = None

    def add(self, frame: Any) -> None:
        """Convert one frame, turn it upright, and keep it."""
        layout = self.format or self._choose_format(frame)
        if not self.is_eight_bit and frame.width % _ALIGNMENT:
            self.aligner = self.aligner or _Aligner(frame, self.time_base)
            pixels_HWC = self.aligner.to_ndarray(frame, layout)
        else:
            pixels_HWC = frame.to_ndarray(format=layout)
        if frame.rotation:
            pixels_HWC = np.rot90(pixels_HWC, k=round(frame.rotation // 90), axes=(0, 1)).copy()
        self._keep(pixels_HWC)

    def _keep(self, pixels_HWC: Any) -> None:
        if self.frames_FHWC is None:
            self.frames_FHWC = self._room(self.expected, pixels_HWC.shape)
        elif pixels_HWC.shape != self.frames_FHWC.shape[1:]:
            before, now = (f"{shape[1]}x{shape[0]}" for shape in (self.frames_FHWC.shape[1:], pixels_HWC.shape))
            raise ValueError(f"the video {self.source!r} changes its size from {before} to {now}; encode it again in one size")
        if self.count == len(self.frames_FHWC):
            grown = self._room(self.count + self.count // 2 + 1, pixels_HWC.shape)
            grown[: self.count] = self.frames_FHWC
            self.frames_FHWC = grown
        if self.is_eight_bit:
            np.divide(pixels_HWC, np.float32(255), out=self.frames_FHWC[self.count], dtype=np.float32)
        else:
            self.frames_FHWC[self.count] = pixels_HWC
        self.count += 1

    def _room(self, frames: int, shape_HWC: tuple[int, ...]) -> Any:
        """An uninitialised array for *frames*; the system provides memory as it is filled."""
        needed_bytes = frames * math.prod(shape_HWC) * 4
        allowed_bytes = int(HostMemory().available_bytes() * SHARE_OF_FREE_RAM)
        if needed_bytes > allowed_bytes:
            raise ValueError(
                f"decoding {frames} frames of {shape_HWC[1]}x{shape_HWC[0]} pixels of {self.source!r} takes {needed_bytes // MIB:,} MiB, "
                f"and it may take {allowed_bytes // MIB:,} MiB of the memory that is free; trim the video or make it smaller"
            )
        return np.empty((frames, *shape_HWC), dtype=np.float32)

    def _choose_format(self, frame: Any) -> str:
        name = frame.format.name
        self.has_alpha = name == "pal8" or any(component.is_alpha for component in frame.format.components)
        self.is_eight_bit = name in _EIGHT_BIT_FORMATS
        eight_bit, deep = ("rgba", "gbrapf32le") if self.has_alpha else ("rgb24", "gbrpf32le")
        self.format = eight_bit if self.is_eight_bit else deep
        return self.format

    def tensors(self) -> tuple[Any, Any]:
        """Images [frame, height, width, 3] and alpha [frame, height, width, 1] or None; float, 0 to 1."""
        if self.frames_FHWC is None:
            return torch.zeros(0, 0, 0, 3), None
        stacked = torch.from_numpy(self.frames_FHWC[: self.count])
        return (stacked[..., :3], stacked[..., 3:]) if self.has_alpha else (stacked, None)


class _SampleCollector:
    """Collects the sound within the window."""

    def __init__(self, stream: Any, window: TrimWindow) -> None:
        self.stream = stream
        self.window = window
        self.resampler = av.AudioResampler(format="fltp")
        self.arrays: list[Any] = []
        self.done = False

    def add(self, packet: Any) -> None:
        """Decode one packet and keep what lies within the window."""
        for frame in (piece for decoded in packet.decode() for piece in self.resampler.resample(decoded)):
            if self.window.end_s is not None and frame.time > self.window.end_s:
                self.done = True
                return
            skipped = 0
            if not self.arrays:
                late_s = self.window.start_s - float(frame.pts * self.stream.time_base)
                skipped = max(0, int(late_s * self.stream.sample_rate))
            if skipped < frame.samples:
                self.arrays.append(frame.to_ndarray()[..., skipped:])

    def audio(self) -> dict[str, Any] | None:
        """The sound in the form that nodes exchange, or None without sound."""
        if not self.arrays:
            return None
        samples_CT = np.concatenate(self.arrays, axis=1)
        if self.window.duration_s:
            samples_CT = samples_CT[..., : int(self.window.duration_s * self.stream.sample_rate)]
        return {"waveform": torch.from_numpy(samples_CT).unsqueeze(0), "sample_rate": int(self.stream.sample_rate or 1)}


def decode_components(container: Any, window: TrimWindow, source: Any) -> VideoComponents:
    """The frames and sound of an open container within *window*. Frames that cannot be decoded are left out.

    Raises ``ValueError``, naming *source*, when there is no video stream.
    """
    stream = first_video_stream(container, source)
    start_pts = int(window.start_s / stream.time_base)
    end_pts = None if window.end_s is None else int(window.end_s / stream.time_base)
    if start_pts:
        container.seek(start_pts, stream=stream)
    frames = _FrameCollector(stream.time_base, _expected_frames(stream, window), source)
    audio_stream = last_decodable_audio_stream(container)
    samples = None if audio_stream is None else _SampleCollector(audio_stream, window)
    video_done = False
    for packet in container.demux(*[stream] if samples is None else [stream, audio_stream]):
        if video_done and (samples is None or samples.done):
            break
        if packet.stream.type == "audio":
            if samples is not None and not samples.done:
                samples.add(packet)
        elif not video_done:
            video_done = _collect(packet, frames, start_pts, end_pts)
    images, alpha = frames.tensors()
    audio = None if samples is None else samples.audio()
    return VideoComponents(images, frame_rate(container, stream), audio, dict(container.metadata), alpha)


def _expected_frames(stream: Any, window: TrimWindow) -> int:
    """How many frames the header lets expect in *window*; 1 if it does not say."""
    rate = float(stream.average_rate or 0)
    if window.duration_s and rate:
        in_window = math.ceil(window.duration_s * rate) + 1
        return min(in_window, stream.frames) if stream.frames else in_window
    if stream.frames:
        return max(1, int(stream.frames) - int(window.start_s * rate))
    if stream.duration is not None and rate:
        return max(1, math.ceil((float(stream.duration * stream.time_base) - window.start_s) * rate))
    return 1


def _collect(packet: Any, frames: _FrameCollector, start_pts: int, end_pts: int | None) -> bool:
    """Decode one packet; True once a frame lies after the window."""
    interrupt_flag.raise_if_set()
    try:
        for frame in packet.decode():
            if frame.pts is not None and frame.pts < start_pts:
                continue
            if end_pts is not None and frame.pts is not None and frame.pts >= end_pts:
                return True
            frames.add(frame)
    except av.error.InvalidDataError:
        log.warning("A frame of the video is damaged and is left out")
    return False
