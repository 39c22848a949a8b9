"""Re-encodes a video file or a part of it frame by frame, so that memory use does not grow with its length."""

import contextlib
import dataclasses
import logging
import math
from collections import deque
from fractions import Fraction
from typing import Any, Final

from comfy.interruption import interrupt_flag
from comfy.lazy_import import lazy_module
from comfy_api.latest._pyav import av

from .video_colours import ColourSpace, copy_marks, space_of_stream
from .video_encode import bits_for, pixel_format
from .video_output import Encoding, write_tags, written_whole
from .video_probe import AudioFormat, TrimWindow, audio_format, first_video_stream, last_decodable_audio_stream
from .video_timeline import FrameTimeline

np = lazy_module("numpy")
log = logging.getLogger(__name__)

# Quarter turns counter-clockwise -> FFmpeg filters.
_TURNS: Final = {1: (("transpose", "cclock"),), 2: (("hflip", None), ("vflip", None)), 3: (("transpose", "clock"),)}


@dataclasses.dataclass(frozen=True, slots=True)
class OutputForm:
    """How to re-encode: *bits* per component, the constant rate factor *crf* or None, and the colour space the user says the pixels are."""

    encoding: Encoding
    bits: int
    crf: float | None = None
    space: ColourSpace | None = None


class _Turner:
    """Turns frames upright according to the source's display matrix."""

    def __init__(self, frame: Any, quarters: int, time_base: Any) -> None:
        self.graph = av.filter.Graph()
        self.source = last = self.graph.add_buffer(width=frame.width, height=frame.height, format=frame.format.name, time_base=time_base)
        for name, argument in (*_TURNS[quarters], ("buffersink", None)):
            following = self.graph.add(name, argument)
            last.link_to(following)
            last = following
        self.sink = last
        self.graph.configure()

    def turn(self, frame: Any) -> Any:
        """*frame*, turned upright."""
        self.source.push(frame)
        return self.sink.pull()


class _VideoTrack:
    """Decodes, trims, turns and encodes the frames. The output has the size of the first kept frame."""

    def __init__(self, stream: Any, window: TrimWindow, form: OutputForm) -> None:
        self.stream = stream
        self.form = form
        self.keeps_marks = space_of_stream(stream) is not None
        self.bits = bits_for(form.bits, space_of_stream(stream) or form.space)
        self.rate = Fraction(stream.average_rate) if stream.average_rate else Fraction(1)
        self.start_pts = int(window.start_s / stream.time_base)
        self.end_pts = None if window.end_s is None else int(window.end_s / stream.time_base)
        stream_end = None if stream.duration is None else (stream.start_time or 0) + stream.duration
        step = max(1, round(1 / self.rate / stream.time_base))
        self.timeline = FrameTimeline(step, self.start_pts, self.end_pts, stream_end)
        self.out: Any = None
        self.source_size = (0, 0)  # known with the first frame
        self.turner: _Turner | None = None
        self.done = False

    def kept_frames(self, packet: Any) -> list[Any]:
        """The frames of *packet* that lie within the window; damaged ones are left out."""
        try:
            decoded = packet.decode()
        except av.error.InvalidDataError:
            log.warning("A frame of the video is damaged and is left out")
            return []
        kept = []
        for frame in decoded:
            if frame.pts is not None and frame.pts < self.start_pts:
                continue
            if frame.pts is not None and self.end_pts is not None and frame.pts >= self.end_pts:
                self.done = True
                break
            kept.append(frame)
        return kept

    def add_stream(self, output: Any, frame: Any) -> None:
        """Add the video stream to *output* in the size of the upright *frame*. Raises ``ValueError`` for odd sizes."""
        encoding = self.form.encoding
        quarters = round(frame.rotation // 90) % 4 if frame.rotation else 0
        width, height = (frame.height, frame.width) if quarters % 2 else (frame.width, frame.height)
        encoding.check_size(width, height, "video is")
        self.source_size = (frame.width, frame.height)
        self.turner = _Turner(frame, quarters, self.stream.time_base) if quarters else None
        self.out = output.add_stream(encoding.encoder, rate=self.rate)
        # Without B-frames packets keep the order of display, so that each keeps its own duration in MP4.
        self.out.codec_context.max_b_frames = 0
        self.out.width, self.out.height, self.out.pix_fmt = width, height, pixel_format(self.bits)
        self.out.options = encoding.options(self.form.crf)
        self._mark(self.out.codec_context)
        self.out.codec_context.time_base = self.stream.time_base

    def _mark(self, target: Any) -> None:
        if self.keeps_marks:
            copy_marks(self.stream, target)
        elif self.form.space is not None:
            self.form.space.mark(target)

    def encode(self, frame: Any) -> list[Any]:
        """The packets for *frame*. Raises ``ValueError`` when the video changes its size."""
        if (frame.width, frame.height) != self.source_size:
            before, now = self.source_size, (frame.width, frame.height)
            raise ValueError(f"the video changes its size from {before[0]}x{before[1]} to {now[0]}x{now[1]}; it cannot be re-encoded")
        pts = self.timeline.place(frame.pts, frame.duration)
        if pts is None:
            return []
        upright = frame if self.turner is None else self.turner.turn(frame)
        full_range = not self.keeps_marks and upright.color_range == av.video.reformatter.ColorRange.JPEG
        ranges = {"src_color_range": "JPEG", "dst_color_range": "MPEG"} if full_range else {}
        converted = upright.reformat(format=pixel_format(self.bits), **ranges)
        self._mark(converted)
        converted.pts = pts
        converted.pict_type = 0  # else the encoder copies the source's choice of key frames
        return self._timed(self.out.encode(converted))

    def flush(self) -> list[Any]:
        """The packets that are still in the encoder."""
        return self._timed(self.out.encode(None))

    def _timed(self, packets: list[Any]) -> list[Any]:
        for packet in packets:
            packet.duration = self.timeline.take_duration(packet.pts)
        return packets

    @property
    def end_s(self) -> float:
        """How far the output is filled, in seconds."""
        return float((self.timeline.end or 0) * self.stream.time_base)


class _AudioTrack:
    """Decodes, trims and encodes the sound, never ahead of the frames written so far."""

    def __init__(self, stream: Any, format: AudioFormat, window: TrimWindow, encoding: Encoding) -> None:
        self.stream = stream
        self.encoder = encoding.sound_encoder
        format = self.format = dataclasses.replace(format, rate_hz=encoding.sound_rate_hz(format.rate_hz))
        self.window = window
        self.resampler = av.AudioResampler(format="fltp", layout=format.layout, rate=format.rate_hz)
        self.limit = math.ceil(window.duration_s * format.rate_hz) if window.duration_s else None
        self.pending: deque[Any] = deque()
        self.started = False
        self.written = 0
        self.done = False
        self.out: Any = None

    def add_stream(self, output: Any) -> None:
        """Add the sound stream to *output*."""
        self.out = output.add_stream(self.encoder, rate=self.format.rate_hz, layout=self.format.layout)

    def feed(self, packet: Any) -> None:
        """Decode one packet and queue what lies within the window."""
        for frame in (piece for decoded in packet.decode() for piece in self.resampler.resample(decoded)):
            base = frame.time_base or Fraction(1, self.format.rate_hz)
            start_s = None if frame.pts is None else float(frame.pts * base)
            if self.started:
                self.pending.append(frame)
                continue
            if start_s is not None and self.window.end_s is not None and start_s >= self.window.end_s:
                self.done = True
                return
            self._start(frame, start_s or 0.0)

    def _start(self, frame: Any, start_s: float) -> None:
        """Queue the first frame without the part before the window; sound that begins late is limited to the rest of the window."""
        skipped = max(0, int((self.window.start_s - start_s) * self.format.rate_hz))
        if skipped >= frame.samples:
            return
        self.started = True
        if self.window.end_s is not None and start_s > self.window.start_s:
            rest = math.ceil((self.window.end_s - start_s) * self.format.rate_hz)
            self.limit = rest if self.limit is None else min(self.limit, rest)
        self.pending.append(self._part(frame, skipped, frame.samples) if skipped else frame)

    def _part(self, frame: Any, first: int, last: int) -> Any:
        samples = np.ascontiguousarray(frame.to_ndarray()[..., first:last])
        part = av.AudioFrame.from_ndarray(samples, format="fltp", layout=self.format.layout)
        part.sample_rate = self.format.rate_hz
        return part

    def allowed(self, video_end_s: float) -> int:
        """How many samples may be written in total while the frames reach *video_end_s*."""
        samples = math.ceil(round(video_end_s * self.format.rate_hz, 6))
        return samples if self.limit is None else min(samples, self.limit)

    def drain(self, video_end_s: float, final: bool = False) -> list[Any]:
        """The packets of the queued sound up to the last video frame; with *final* the last sound frame is cut to fit."""
        packets, allowed = [], self.allowed(video_end_s)
        while self.pending and not self.done:
            frame = self.pending[0]
            if self.written + frame.samples > allowed:
                if not final or allowed <= self.written:
                    break
                frame = self._part(frame, 0, allowed - self.written)
                self.pending.clear()
            else:
                self.pending.popleft()
            frame.pts, frame.time_base = self.written, Fraction(1, self.format.rate_hz)
            self.written += frame.samples
            packets += self.out.encode(frame)
        if final or (self.limit is not None and self.written >= self.limit):
            self.done = True
        return packets


class Transcoder:
    """One run over an open source *container*. It opens the output at *path* when it keeps the first frame."""

    def __init__(self, container: Any, window: TrimWindow, path: Any, form: OutputForm, metadata: dict | None, source: Any) -> None:
        self.container = container
        self.path = path
        self.form = form
        self.metadata = metadata
        self.source = source
        stream = first_video_stream(container, source)
        self.video = _VideoTrack(stream, window, form)
        if self.video.start_pts:
            container.seek(self.video.start_pts, stream=stream)
        self.audio = self._audio_track(window)
        self.output: Any = None
        self.opened = contextlib.ExitStack()

    def _audio_track(self, window: TrimWindow) -> _AudioTrack | None:
        stream = last_decodable_audio_stream(self.container)
        if stream is None:
            return None
        announced = bool(stream.codec_context.sample_rate)
        format = audio_format(self.container, stream)
        if not announced:
            self.container.seek(self.video.start_pts, stream=self.video.stream)
            if format is not None:
                stream.codec_context.flush_buffers()
        return None if format is None else _AudioTrack(stream, format, window, self.form.encoding)

    def run(self) -> None:
        """Write the output. If anything fails, what was at the path stays, and the error is raised."""
        with self.opened:
            self._run()

    def _run(self) -> None:
        video, audio = self.video, self.audio
        for packet in self.container.demux(*[video.stream] if audio is None else [video.stream, audio.stream]):
            if video.done and (audio is None or audio.done):
                break
            interrupt_flag.raise_if_set()
            if packet.stream == video.stream:
                if not video.done:
                    self._add_frames(packet)
            elif audio is not None and not audio.done:
                self._add_sound(audio, packet)
        if self.output is None:
            raise ValueError(f"No frames can be decoded in {self.source!r} within the asked-for part")
        if audio is not None and not audio.done:
            self.output.mux(audio.drain(video.end_s, final=True))
        self.output.mux(video.flush())
        if audio is not None:
            self.output.mux(audio.out.encode(None))

    def _add_frames(self, packet: Any) -> None:
        for frame in self.video.kept_frames(packet):
            if self.output is None:
                self._open(frame)
            self.output.mux(self.video.encode(frame))
            if self.audio is not None:
                self.output.mux(self.audio.drain(self.video.end_s))
        if self.video.done:
            self.video.timeline.close_window()

    def _add_sound(self, audio: _AudioTrack, packet: Any) -> None:
        audio.feed(packet)
        if audio.done or not self.video.done or self.output is None:
            return
        # The last frame is known. Containers that store sound after the frames still hold most of it, so read on until it suffices.
        end_s = self.video.end_s
        self.output.mux(audio.drain(end_s))
        if audio.pending or audio.written >= audio.allowed(end_s):
            self.output.mux(audio.drain(end_s, final=True))

    def _open(self, first_frame: Any) -> None:
        # Seeking back later would lose the first sound of some containers, so the output waits for this frame.
        target = self.opened.enter_context(written_whole(self.path))
        self.output = self.opened.enter_context(av.open(target, **self.form.encoding.open_arguments(self.path)))
        write_tags(self.output, self.metadata, self.container.metadata)
        self.video.add_stream(self.output, first_frame)
        if self.audio is not None:
            self.audio.add_stream(self.output)
