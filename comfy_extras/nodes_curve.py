"""Nodes that edit curves and count how often levels occur in pictures."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from comfy.lazy_import import lazy_module
from comfy_api.input import CurveInput
from comfy_api.latest import ComfyExtension, io

if TYPE_CHECKING:
    from numpy import ndarray
    from torch import Tensor

numpy = lazy_module("numpy")

LEVELS = 256
LUMINANCE = (0.2126, 0.7152, 0.0722)  # of red, green and blue light, ITU-R BT.709


class CurveEditor(io.ComfyNode):
    """Gives a curve that was drawn on the page."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CurveEditor",
            display_name="Curve Editor",
            category="utilities",
            has_intermediate_output=True,
            inputs=[io.Curve.Input("curve"), io.Histogram.Input("histogram", optional=True)],
            outputs=[io.Curve.Output("curve")],
        )

    @classmethod
    def execute(cls, curve: Any, histogram: Any = None) -> io.NodeOutput:
        """The curve; *histogram* is shown behind it."""
        shown = None if histogram is None else {"histogram": list(histogram)}
        return io.NodeOutput(CurveInput.from_raw(curve), ui=shown)


class ImageHistogram(io.ComfyNode):
    """Counts how often each level occurs in an image."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="ImageHistogram",
            display_name="Image Histogram",
            category="utilities",
            inputs=[io.Image.Input("image")],
            outputs=[io.Histogram.Output(name) for name in ("rgb", "luminance", "red", "green", "blue")],
        )

    @classmethod
    def execute(cls, image: Tensor) -> io.NodeOutput:
        """256 counts each, of the first image: the channels' mean, the luminance and each channel; a grey image has three equal ones."""
        colours = image[0].cpu().float().numpy()
        if colours.shape[-1] < 3:
            colours = colours[..., [0, 0, 0]]
        red, green, blue = (_counts(colours[..., channel]) for channel in range(3))
        bright = _counts(colours[..., :3] @ numpy.array(LUMINANCE, dtype=numpy.float32))
        return io.NodeOutput(*(one.tolist() for one in ((red + green + blue) // 3, bright, red, green, blue)))


def _counts(values: ndarray) -> ndarray:
    return numpy.bincount(numpy.clip(values * (LEVELS - 1), 0, LEVELS - 1).astype(numpy.uint8).ravel(), minlength=LEVELS)


class CurveExtension(ComfyExtension):
    """The nodes of this module."""

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        """The node classes."""
        return [CurveEditor, ImageHistogram]


async def comfy_entrypoint() -> CurveExtension:
    """What the server loads."""
    return CurveExtension()
