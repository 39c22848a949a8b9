"""Decodes a video file into tensors."""

import logging
from typing import Any, Final

from comfy.lazy_import import lazy_module
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
    """Converts frames to arrays, all in the format that suits the first one."""

    def __init__(self, time_base: Any) -> None:
        self.time_base = time_base
        self.arrays: list[Any] = []
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
        self.arrays.append(pixels_HWC)

    def _choose_format(self, frame: Any) -> str:
        name = frame.format.name
        self.has_alpha = name == "pal8" or any(component.is_alpha for component in frame.format.components)
        self.is_eight_bit = name in _EIGHT_BIT_FORMATS
        eight_bit, deep = ("rgba", "gbrapf32le") if self.has_alpha else ("rgb24", "gbrpf32le")
        self.format = eight_bit if self.is_eight_bit else deep
        return self.format

    def tensors(self) -> tuple[Any, Any]:
        """Images [frame, height, width, 3] and alpha [frame, height, width, 1] or None; float, 0 to 1."""
        if not self.arrays:
            return torch.zeros(0, 0, 0, 3), None
        stacked = torch.stack([torch.from_numpy(array) for array in self.arrays])
        if self.is_eight_bit:
            stacked = stacked.float() / 255.0
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
    frames = _FrameCollector(stream.time_base)
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


def _collect(packet: Any, frames: _FrameCollector, start_pts: int, end_pts: int | None) -> bool:
    """Decode one packet; True once a frame lies after the window."""
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
