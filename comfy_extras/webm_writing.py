"""Encodes images as a WebM file, one frame at a time (for ``nodes_video``)."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Final

from comfy.interruption import interrupt_flag
from comfy.lazy_import import lazy_module
from comfy_api.latest._pyav import av
from utils.whole_files import partial_beside

if TYPE_CHECKING:
    from torch import Tensor

np = lazy_module("numpy")
log = logging.getLogger(__name__)

# Codec -> FFmpeg's encoder, pixel format without and with transparency (None: it cannot hold any), further options.
CODECS: Final[dict[str, tuple[str, str, str | None, dict[str, str]]]] = {
    "vp9": ("libvpx-vp9", "yuv420p", "yuva420p", {}),
    "av1": ("libsvtav1", "yuv420p10le", None, {"preset": "6"}),
}
_RGBA_CHANNELS = 4


def write_webm(path: str, images_FHWC: Tensor, codec: str, fps: float, crf: float, tags: Mapping[str, str]) -> None:
    """Write *images_FHWC* (0…1, 3 channels, or 4 with transparency) with *codec*, a key of :data:`CODECS`.

    Transparency that the codec cannot hold is left out with a warning. The file appears whole or not at all. Blocks; raises
    PyAV's errors and ``InterruptProcessingException``.
    """
    encoder, opaque, transparent, options = CODECS[codec]
    has_alpha = images_FHWC.shape[-1] == _RGBA_CHANNELS
    if has_alpha and transparent is None:
        log.warning("The transparency of the images is not saved: %s has none in WebM; choose vp9", codec)
    layout = "rgba" if has_alpha and transparent is not None else "rgb24"
    with partial_beside(path) as partial, av.open(partial, mode="w", format="webm") as output:
        output.metadata.update(tags)
        stream = output.add_stream(encoder, rate=Fraction(round(fps * 1000), 1000))
        stream.height, stream.width = images_FHWC.shape[1:3]
        stream.pix_fmt = transparent if layout == "rgba" else opaque
        stream.bit_rate = 0  # else the rate factor is only a bound
        stream.options = {"crf": str(crf), **options}
        for image in images_FHWC:
            interrupt_flag.raise_if_set()
            output.mux(stream.encode(_frame(image, layout)))
        output.mux(stream.encode(None))


def _frame(image_HWC: Tensor, layout: str) -> Any:
    pixels = (image_HWC[..., : len(layout.removesuffix("24"))] * 255).clamp(0, 255).byte().cpu().numpy()
    return av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format=layout)
