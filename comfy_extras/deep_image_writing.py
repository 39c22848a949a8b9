"""Writes pictures with more than 8 bits per channel: PNG with 16 bits by PyAV, OpenEXR with 32-bit floats by the OpenEXR package.

Both packages are optional and imported at first use. A file appears under its name only when it is complete.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from comfy.lazy_import import lazy_module
from comfy_api.latest._pyav import av
from comfy_extras.image_writing import png_key
from utils.whole_files import partial_beside, write_whole

if TYPE_CHECKING:
    from numpy import ndarray
    from torch import Tensor

numpy = lazy_module("numpy")
openexr = lazy_module("OpenEXR")
torch = lazy_module("torch")

LEVELS_16_BIT = 65535
_PNG_LAYOUTS = {1: "gray16", 3: "rgb48", 4: "rgba64"}
_EXR_CHANNELS = {1: "Y", 3: "RGB", 4: "RGBA"}
_PNG_HEADER_END = 33  # the signature, and the chunk IHDR that always follows it
# x and y of red, green, blue and white (D65), ITU-R BT.709 and BT.2020.
_BT_709 = (0.64, 0.33, 0.30, 0.60, 0.15, 0.06, 0.3127, 0.3290)
_BT_2020 = (0.708, 0.292, 0.170, 0.797, 0.131, 0.046, 0.3127, 0.3290)
PRIMARIES = {"sRGB": _BT_709, "linear": _BT_709, "HDR": _BT_2020}
# Hybrid log-gamma, ITU-R BT.2100, table 5.
_HLG_A, _HLG_B, _HLG_C = 0.17883277, 0.28466892, 0.55991072928


def srgb_to_linear(values: Tensor) -> Tensor:
    """Light from values encoded by IEC 61966-2-1. A fourth channel of ...×C *values* is left as it is."""
    return _on_colours(values, lambda x: torch.where(x <= 0.04045, x / 12.92, ((x.clamp(min=0.0) + 0.055) / 1.055) ** 2.4))


def hlg_to_linear(values: Tensor) -> Tensor:
    """Scene light, 1 at the signal 1, from hybrid log-gamma values. A fourth channel of ...×C *values* is left as it is."""
    return _on_colours(
        values, lambda x: torch.where(x <= 0.5, x**2 / 3.0, (torch.exp((x.clamp(min=0.5) - _HLG_C) / _HLG_A) + _HLG_B) / 12.0)
    )


TO_LINEAR = {"sRGB": srgb_to_linear, "HDR": hlg_to_linear, "linear": lambda values: values}


def save_png16(path: str, image_HWC: Tensor, texts: Mapping[str, str]) -> None:
    """Write an image of 1, 3 or 4 channels, clipped to 0…1, as PNG with 16 bits per channel and *texts* as text chunks. Blocks on disk.

    Raises ``ImportError`` without PyAV and ``ValueError`` for another number of channels.
    """
    levels = (image_HWC.float() * LEVELS_16_BIT).clamp(0, LEVELS_16_BIT).to(torch.int32).cpu().numpy().astype(numpy.uint16)
    layout = _PNG_LAYOUTS[_channels_of(image_HWC, _PNG_LAYOUTS)]
    encoded = _encoded_png(levels[..., 0] if layout == "gray16" else levels, layout)
    chunks = b"".join(_text_chunk(key, value) for key, value in texts.items())
    write_whole(path, lambda opened: opened.write(encoded[:_PNG_HEADER_END] + chunks + encoded[_PNG_HEADER_END:]))


def save_exr(path: str, image_HWC: Tensor, texts: Mapping[str, str], colour_space: str) -> None:
    """Write an image of 1, 3 or 4 channels as OpenEXR, unclipped, in 32-bit floats; *texts* become attributes. Blocks on disk.

    *colour_space* says what the values are: "sRGB", "HDR" (hybrid log-gamma, BT.2020) or "linear". They are stored as linear light.
    Raises ``ImportError`` without the OpenEXR package and ``ValueError`` for another number of channels.
    """
    name = _EXR_CHANNELS[_channels_of(image_HWC, _EXR_CHANNELS)]
    light: ndarray = TO_LINEAR[colour_space](image_HWC.float()).cpu().numpy()
    pixels = numpy.ascontiguousarray(light[..., 0] if name == "Y" else light)
    header = {**texts, **_exr_header(), "chromaticities": PRIMARIES[colour_space]}
    with partial_beside(path) as partial, openexr.File(header, {name: pixels}) as file:
        file.write(partial)


def _exr_header() -> dict[str, Any]:
    try:
        return {"compression": openexr.ZIP_COMPRESSION, "type": openexr.scanlineimage}
    except ModuleNotFoundError as error:
        raise ImportError("EXR files need the OpenEXR package, which is not installed. Run: pip install OpenEXR") from error


def _channels_of(image_HWC: Tensor, known: Mapping[int, str]) -> int:
    channels = image_HWC.shape[-1]
    if channels not in known:
        raise ValueError(f"images of {channels} channels cannot be saved; they need 1 (grey), 3 (RGB) or 4 (RGBA)")
    return channels


def _encoded_png(levels: ndarray, layout: str) -> bytes:
    height, width = levels.shape[:2]
    codec = av.CodecContext.create("png", "w")
    codec.width, codec.height, codec.pix_fmt, codec.time_base = width, height, f"{layout}be", Fraction(1)
    frame = av.VideoFrame.from_ndarray(levels, format=f"{layout}le").reformat(format=f"{layout}be")
    frame.pts = 0
    return b"".join(bytes(packet) for packet in [*codec.encode(frame), *codec.encode(None)])


def _text_chunk(key: str, value: str) -> bytes:
    content = b"tEXt" + png_key(key).encode("latin-1") + b"\0" + value.encode("latin-1", "replace")
    return struct.pack(">I", len(content) - 4) + content + struct.pack(">I", zlib.crc32(content))


def _on_colours(values: Tensor, convert: Any) -> Tensor:
    if values.shape[-1] != 4:
        return convert(values)
    return torch.cat([convert(values[..., :3]), values[..., 3:]], dim=-1)
