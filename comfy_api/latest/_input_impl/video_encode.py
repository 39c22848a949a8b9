"""Encodes tensors as H.264 and AAC in MP4."""

import math
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

from comfy.lazy_import import lazy_module
from comfy_api.latest._pyav import av
from comfy_api.latest._util.video_types import VideoCodec, VideoComponents, VideoContainer

from .video_output import mp4_write_kwargs, write_tags
from .video_probe import AudioFormat

np = lazy_module("numpy")

HIGH_DEPTH_BITS = 10


def pixel_format(bits: int) -> str:
    """The pixel format in which frames of *bits* per component are encoded."""
    return "yuv420p10le" if bits >= HIGH_DEPTH_BITS else "yuv420p"


def _frame_of(image_HWC: Any, bits: int) -> Any:
    """One float image as a video frame; 10-bit frames are made from 16 bits, so that gradients stay smooth."""
    if bits >= HIGH_DEPTH_BITS:
        pixels = (image_HWC.float() * 65535).clamp(0, 65535).cpu().numpy().astype(np.uint16)
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb48le")
    else:
        pixels = (image_HWC * 255).clamp(0, 255).byte().cpu().numpy()
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
    return frame.reformat(format=pixel_format(bits))


def encode_components(
    components: VideoComponents, path: Any, format: VideoContainer, codec: VideoCodec, metadata: dict | None, bits: int, crf: float | None
) -> None:
    """Write frames and sound to a path or stream; the sound is cut where the last frame ends.

    Raises ``ValueError`` for an unsupported format or codec, and for frames of odd width or height, which H.264 cannot hold.
    """
    arguments = mp4_write_kwargs(path, format, codec)
    height, width = components.images.shape[1:3]
    if width % 2 or height % 2:
        raise ValueError(f"H.264 needs an even width and height, but the frames are {width}x{height}; crop or resize them first")
    rate = Fraction(round(components.frame_rate * 1000), 1000)
    with av.open(path, **arguments) as output:
        write_tags(output, metadata)
        stream = output.add_stream("h264", rate=rate)
        stream.width, stream.height, stream.pix_fmt = width, height, pixel_format(bits)
        if crf is not None:
            stream.options = {"crf": str(crf)}
        frame_count = components.images.shape[0]
        sound = _AudioTrack(output, components.audio, frame_count / rate) if components.audio else None
        for image in components.images:
            output.mux(stream.encode(_frame_of(image[..., :3], bits)))
        output.mux(stream.encode(None))
        if sound is not None:
            sound.write()


class _AudioTrack:
    """The sound of a video: the first of its batch, at most *length_s* seconds (the length of the frames)."""

    def __init__(self, output: Any, audio: Mapping[str, Any], length_s: Fraction) -> None:
        self.output = output
        self.rate_hz = int(audio["sample_rate"])
        length = math.ceil(self.rate_hz * length_s)
        self.waveform_CT = audio["waveform"][0, :, :length]
        self.layout = AudioFormat(self.rate_hz, self.waveform_CT.shape[0]).layout
        self.stream = output.add_stream("aac", rate=self.rate_hz, layout=self.layout)

    def write(self) -> None:
        """Encode everything."""
        samples = self.waveform_CT.float().cpu().contiguous().numpy()
        frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout=self.layout)
        frame.sample_rate, frame.pts = self.rate_hz, 0
        self.output.mux(self.stream.encode(frame))
        self.output.mux(self.stream.encode(None))
