"""The node with which bounding boxes are drawn on the page."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from comfy_api.latest import ComfyExtension, io
from comfy_extras.box_preview import draw_regions
from comfy_extras.box_values import boxes_to_regions, read_boxes, regions_to_elements, regions_to_frames

if TYPE_CHECKING:
    from torch import Tensor


class CreateBoundingBoxes(io.ComfyNode):
    """Gives boxes that were drawn on the page, as pixels, as elements of a prompt, and as a picture."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CreateBoundingBoxes",
            display_name="Create Bounding Boxes",
            category="utilities",
            description="Draw boxes on a canvas and describe them. Gives a picture, the boxes in pixels, and elements for a prompt.",
            inputs=[
                io.Image.Input("background", optional=True, tooltip="A picture to draw on."),
                io.MultiType.Input(
                    "bboxes",
                    [io.BoundingBox, io.Array, io.String],
                    optional=True,
                    tooltip="Boxes, elements or JSON of them to begin with. What is drawn afterwards holds until this input changes.",
                ),
                io.Int.Input("width", default=1024, min=64, max=16384, step=16, tooltip="Width of the canvas in pixels."),
                io.Int.Input("height", default=1024, min=64, max=16384, step=16, tooltip="Height of the canvas in pixels."),
                io.BoundingBoxes.Input(
                    "editor_state",
                    socketless=False,
                    tooltip="The boxes, from the background to the foreground, with type, text, description and colors.",
                ),
                io.BoundingBoxes.Input(
                    "last_incoming", optional=True, tooltip="Kept by the page: which value of bboxes the canvas began with last."
                ),
            ],
            is_experimental=True,
            is_output_node=True,
            outputs=[
                kind.Output(display_name=name) for kind, name in ((io.Image, "preview"), (io.BoundingBox, "bboxes"), (io.Array, "elements"))
            ],
        )

    @classmethod
    def execute(
        cls,
        width: int,
        height: int,
        editor_state: Any = None,
        last_incoming: Any = None,
        background: Tensor | None = None,
        bboxes: Any = None,
    ) -> io.NodeOutput:
        """Picture, boxes of one frame, and elements; of *bboxes* where they changed since *last_incoming*, else of *editor_state*.

        Raises ``ValueError`` when *bboxes* cannot be understood.
        """
        incoming = read_boxes(bboxes, width, height)
        has_changed = bool(incoming) and incoming != last_incoming
        regions = boxes_to_regions(incoming if has_changed else editor_state, width, height)
        picture = draw_regions(regions, width, height, None if background is None else background[0])
        shown = {"dims": [width, height]} | ({"input_bboxes": incoming} if incoming else {})
        return io.NodeOutput(picture, regions_to_frames(regions, width, height), regions_to_elements(regions), ui=shown)


class BoundingBoxesExtension(ComfyExtension):
    """The node of this module."""

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        """The node classes."""
        return [CreateBoundingBoxes]


async def comfy_entrypoint() -> BoundingBoxesExtension:
    """What the server loads."""
    return BoundingBoxesExtension()
