"""The node that cuts boxes out of images."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import comfy.utils
from comfy.lazy_import import lazy_module
from comfy_api.latest import ComfyExtension, io
from comfy_extras.box_values import Box, frames_of

if TYPE_CHECKING:
    from torch import Tensor

torch = lazy_module("torch")

# Where nothing can be cut: a square of this share of the shorter side, in the middle, this share of the height from the top.
FALLBACK_SIDE, FALLBACK_TOP = 0.3, 0.1
Corners = tuple[int, int, int, int]


class CropByBBoxes(io.ComfyNode):
    """Cuts what the boxes of each frame enclose out of images."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CropByBBoxes",
            display_name="Crop By Bounding Boxes",
            category="image/transform",
            description="Cuts the region that the boxes of each image enclose and scales it to one size.",
            search_aliases=["crop", "face crop", "bbox crop", "pose", "bounding box"],
            inputs=[
                io.Image.Input("image"),
                io.BoundingBox.Input("bboxes", force_input=True),
                io.Int.Input("output_width", default=512, min=64, max=4096, step=8, tooltip="Width of the results in pixels."),
                io.Int.Input("output_height", default=512, min=64, max=4096, step=8, tooltip="Height of the results in pixels."),
                io.Int.Input("padding", default=0, min=0, max=1024, step=1, tooltip="Pixels to cut beyond the boxes on each side."),
                io.Combo.Input("keep_aspect", options=["stretch", "pad"], default="stretch", tooltip="Fill the size, or add black bars."),
            ],
            outputs=[io.Image.Output(tooltip="One image for each frame that has boxes.")],
        )

    @classmethod
    def execute(
        cls, image: Tensor, bboxes: Any, output_width: int, output_height: int, padding: int, keep_aspect: str = "stretch"
    ) -> io.NodeOutput:
        """N×*output_height*×*output_width*×C, one for each frame with boxes; *image* itself where no frame has any."""
        frames = frames_of(bboxes)
        fit = _padded if keep_aspect == "pad" else _stretched
        crops = []
        for number, one in enumerate(image):
            boxes = frames[min(number, len(frames) - 1)]
            if boxes:
                left, top, right, bottom = _corners(boxes, padding, one.shape[1], one.shape[0])
                crops.append(fit(one[top:bottom, left:right].movedim(-1, 0)[None], output_width, output_height))
        return io.NodeOutput(torch.cat(crops).movedim(1, -1) if crops else image)


def _corners(boxes: list[Box], padding: int, width: int, height: int) -> Corners:
    left, top = (max(0, min(int(box[start]) for box in boxes) - padding) for start in ("x", "y"))
    right = min(width, max(int(box["x"] + box["width"]) for box in boxes) + padding)
    bottom = min(height, max(int(box["y"] + box["height"]) for box in boxes) + padding)
    if left < right and top < bottom:
        return left, top, right, bottom
    side = max(1, int(min(width, height) * FALLBACK_SIDE))
    left, top = max(0, (width - side) // 2), int(height * FALLBACK_TOP)
    return left, top, min(width, left + side), min(height, top + side)


def _stretched(picture: Tensor, width: int, height: int) -> Tensor:
    return comfy.utils.common_upscale(picture, width, height, "area", "disabled")


def _padded(picture: Tensor, width: int, height: int) -> Tensor:
    scale = min(width / picture.shape[3], height / picture.shape[2])
    sides = [max(1, round(side * scale)) for side in (picture.shape[3], picture.shape[2])]
    left, top = (width - sides[0]) // 2, (height - sides[1]) // 2
    around = (left, width - sides[0] - left, top, height - sides[1] - top)
    return torch.nn.functional.pad(_stretched(picture, *sides), around)


class SDPoseExtension(ComfyExtension):
    """The node of this module; the pose model itself is not supported."""

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        """The node classes."""
        return [CropByBBoxes]


async def comfy_entrypoint() -> SDPoseExtension:
    """What the server loads."""
    return SDPoseExtension()
