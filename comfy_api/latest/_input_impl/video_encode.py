"""Encodes tensors as a video file, one frame at a time."""

import math
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

from comfy.interruption import interrupt_flag
from comfy.lazy_import import lazy_module
from comfy_api.latest._pyav import av
from comfy_api.latest._util.video_types import VideoComponents

from .video_colours import ColourSpace
from .video_output import Encoding, write_tags, written_whole
from .video_probe import AudioFormat

np = lazy_module("numpy")

HIGH_DEPTH_BITS = 10


def pixel_format(bits: int) -> str:
    """The pixel format in which frames of *bits* per component are encoded."""
    return "yuv420p10le" if bits >= HIGH_DEPTH_BITS else "yuv420p"


def bits_for(bits: int, space: ColourSpace | None) -> int:
    """*bits* per component, or what *space* needs if that is more."""
    return max(bits, HIGH_DEPTH_BITS) if space is not None and space.is_hdr else bits


def _frame_of(image_HWC: Any, bits: int, space: ColourSpace) -> Any:
    """One float image as a video frame; 10-bit frames are made from 16 bits, so that gradients stay smooth."""
    if bits >= HIGH_DEPTH_BITS:
        pixels = (image_HWC.float() * 65535).clamp(0, 65535).cpu().numpy().astype(np.uint16)
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb48le")
    else:
        pixels = (image_HWC * 255).clamp(0, 255).byte().cpu().numpy()
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
    converted = frame.reformat(format=pixel_format(bits), dst_colorspace=space.primaries)
    space.mark(converted)
    return converted


def encode_components(
    components: VideoComponents, path: Any, encoding: Encoding, metadata: dict | None, bits: int, crf: float | None, space: ColourSpace
) -> None:
    """Write frames and sound to a path or stream; the sound is cut where the last frame ends. Alpha is not written.

    Nothing stays at a path unless all was written. Raises ``ValueError`` for sizes that the codec cannot hold and for no frames at all, and
    ``InterruptProcessingException``.
    """
    frame_count, height, width = components.images.shape[:3]
    if not frame_count:
        raise ValueError("the video has no frames, so there is nothing to save")
    encoding.check_size(width, height, "frames are")
    rate = Fraction(round(components.frame_rate * 1000), 1000)
    with written_whole(path) as target, av.open(target, **encoding.open_arguments(path)) as output:
        write_tags(output, metadata)
        stream = output.add_stream(encoding.encoder, rate=rate)
        stream.width, stream.height, stream.pix_fmt = width, height, pixel_format(bits)
        stream.options = encoding.options(crf)
        space.mark(stream.codec_context)
        sound = _AudioTrack(output, components.audio, encoding, frame_count / rate) if components.audio else None
        for image in components.images:
            interrupt_flag.raise_if_set()
            output.mux(stream.encode(_frame_of(image[..., :3], bits, space)))
        output.mux(stream.encode(None))
        if sound is not None:
            sound.write()


class _AudioTrack:
    """The sound of a video: the first of its batch, at most *length_s* seconds (the length of the frames)."""

    def __init__(self, output: Any, audio: Mapping[str, Any], encoding: Encoding, length_s: Fraction) -> None:
        self.output = output
        self.rate_hz = int(audio["sample_rate"])
        length = math.ceil(self.rate_hz * length_s)
        self.waveform_CT = audio["waveform"][0, :, :length]
        self.layout = AudioFormat(self.rate_hz, self.waveform_CT.shape[0]).layout
        self.stored_rate_hz = encoding.sound_rate_hz(self.rate_hz)
        self.stream = output.add_stream(encoding.sound_encoder, rate=self.stored_rate_hz, layout=self.layout)

    def write(self) -> None:
        """Encode everything."""
        samples = self.waveform_CT.float().cpu().contiguous().numpy()
        frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout=self.layout)
        frame.sample_rate, frame.pts = self.rate_hz, 0
        for piece in self._in_stored_rate(frame):
            self.output.mux(self.stream.encode(piece))
        self.output.mux(self.stream.encode(None))

    def _in_stored_rate(self, frame: Any) -> list[Any]:
        if self.stored_rate_hz == self.rate_hz:
            return [frame]
        resampler = av.AudioResampler(format="fltp", layout=self.layout, rate=self.stored_rate_hz)
        return [*resampler.resample(frame), *resampler.resample(None)]
