"""The node that finds edges, by J. Canny, "A Computational Approach to Edge Detection" (1986)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from comfy.lazy_import import lazy_module
from comfy_api.latest import ComfyExtension, io

if TYPE_CHECKING:
    from torch import Tensor

management = lazy_module("comfy.model_management")
ndimage = lazy_module("scipy.ndimage")
numpy = lazy_module("numpy")
torch = lazy_module("torch")

GREY = (0.299, 0.587, 0.114)
BLUR_RADIUS, BLUR_SIGMA = 2, 1.0
MAGNITUDE_FLOOR = 1e-6  # added to the squared magnitude
# Which neighbours lie along a gradient, by its direction in steps of 45 degrees (y points down): (dx, dy) of one, the other is opposite.
ALONG = ((1, 0), (1, 1), (0, 1), (-1, 1))


def canny_edges(images_BHWC: Tensor, low: float, high: float) -> Tensor:
    """The edges of grey or RGB images as B×1×H×W zeros and ones, float32, on the images' device.

    Pictures are made grey and blurred (5 taps, sigma 1); *low* and *high* are compared with Sobel magnitudes, which reach 2.6 at a step
    from black to white. Of a ridge only its crest is kept, and of what is above *low* only what touches something above *high*.
    """
    grey = images_BHWC.float() @ images_BHWC.new_tensor(GREY, dtype=torch.float32) if images_BHWC.shape[-1] >= 3 else images_BHWC[..., 0]
    along_x, along_y = _sobel(_blurred(grey.float().unsqueeze(1)))
    magnitude = (along_x**2 + along_y**2 + MAGNITUDE_FLOOR).sqrt()
    crest = magnitude * _is_crest(magnitude, along_x, along_y)
    edges = [_connected(plane > low, plane > high) for plane in crest[:, 0].cpu().numpy()]
    return torch.from_numpy(numpy.stack(edges)).unsqueeze(1).to(grey.device, torch.float32)


def _blurred(grey: Tensor) -> Tensor:
    taps = [math.exp(-0.5 * (offset / BLUR_SIGMA) ** 2) for offset in range(-BLUR_RADIUS, BLUR_RADIUS + 1)]
    kernel = grey.new_tensor(taps) / sum(taps)
    padded = torch.nn.functional.pad(grey, (BLUR_RADIUS,) * 4, mode="reflect")
    return torch.nn.functional.conv2d(torch.nn.functional.conv2d(padded, kernel.view(1, 1, 1, -1)), kernel.view(1, 1, -1, 1))


def _sobel(grey: Tensor) -> tuple[Tensor, Tensor]:
    kernel = grey.new_tensor([[-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0], [-1.0, 0.0, 1.0]])
    gradients = torch.nn.functional.conv2d(
        torch.nn.functional.pad(grey, (1, 1, 1, 1), mode="replicate"), torch.stack([kernel, kernel.T]).unsqueeze(1)
    )
    return gradients[:, :1], gradients[:, 1:]


def _is_crest(magnitude: Tensor, along_x: Tensor, along_y: Tensor) -> Tensor:
    """Where *magnitude* is largest along the gradient; of two equal neighbours in a row or column the left or upper one is."""
    direction = (torch.atan2(along_y, along_x) * (180.0 / math.pi) / 45.0).round().long() % 4
    around = torch.nn.functional.pad(magnitude, (1, 1, 1, 1))
    height, width = magnitude.shape[-2:]
    crest = torch.zeros_like(magnitude, dtype=torch.bool)
    for number, (dx, dy) in enumerate(ALONG):
        after = around[..., 1 + dy : 1 + dy + height, 1 + dx : 1 + dx + width]
        before = around[..., 1 - dy : 1 - dy + height, 1 - dx : 1 - dx + width]
        highest = (magnitude > before) & (magnitude > after if dx and dy else magnitude >= after)
        crest |= highest & (direction == number)
    return crest & ((along_x != 0) | (along_y != 0))


def _connected(weak: Any, strong: Any) -> Any:
    """The 8-connected regions of *weak* that hold something *strong*."""
    regions, count = ndimage.label(weak, structure=numpy.ones((3, 3)))
    kept = numpy.zeros(count + 1, dtype=bool)
    kept[numpy.unique(regions[strong])] = True
    kept[0] = False
    return kept[regions]


class Canny(io.ComfyNode):
    """Finds the edges in images."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="Canny",
            display_name="Detect Edges (Canny)",
            category="image/filters",
            essentials_category="Image Tools",
            search_aliases=["edge detection", "outline", "contour detection", "line art"],
            inputs=[
                io.Image.Input("image"),
                io.Float.Input("low_threshold", default=0.4, min=0.01, max=0.99, step=0.01),
                io.Float.Input("high_threshold", default=0.8, min=0.01, max=0.99, step=0.01),
            ],
            outputs=[io.Image.Output()],
        )

    @classmethod
    def execute(cls, image: Tensor, low_threshold: float, high_threshold: float) -> io.NodeOutput:
        """White edges on black, B×H×W×3. Raises ``ValueError`` when *low_threshold* is above *high_threshold*."""
        if low_threshold > high_threshold:
            raise ValueError(f"low_threshold ({low_threshold}) is above high_threshold ({high_threshold}); lower it")
        edges = canny_edges(image.to(management.get_torch_device()), low_threshold, high_threshold)
        shown = edges.to(management.intermediate_device(), management.intermediate_dtype())
        return io.NodeOutput(shown.repeat(1, 3, 1, 1).movedim(1, -1))

    detect_edge = execute


class CannyExtension(ComfyExtension):
    """The node of this module."""

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        """The node classes."""
        return [Canny]


async def comfy_entrypoint() -> CannyExtension:
    """What the server loads."""
    return CannyExtension()
