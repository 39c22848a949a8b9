"""Nodes that build documents of picture layers and compose them, as the page's layer editor arranges them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from comfy.lazy_import import lazy_module
from comfy_api.latest import ComfyExtension, io, ui
from comfy_extras.box_values import Box, read_boxes
from comfy_extras.layer_blending import MODES
from comfy_extras.layer_composing import compose
from comfy_extras.layer_documents import VERSION, Layer, canvas_of, frame_of, initial_arrangement, read_arrangement, read_document, whole
from comfy_extras.node_inputs import MAX_RESOLUTION

if TYPE_CHECKING:
    from torch import Tensor

torch = lazy_module("torch")

EMPTY_SIDE = 64
FULL_TURN = 360.0


class ImageCompositor(io.ComfyNode):
    """Composes layers to one picture."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        document = io.Layers.Input("layers", tooltip="The layers, from Add Layer. What the editor saved holds while they stay the same.")
        return io.Schema(
            node_id="ImageCompositor",
            display_name="Create Layered Image",
            category="image",
            inputs=[document, io.Compositor.Input("compositor", tooltip="The arrangement that the editor saved.")],
            outputs=[
                io.Image.Output(tooltip="The picture; with an alpha channel where it is not opaque."),
                io.Mask.Output(tooltip="Where the picture is transparent."),
            ],
            search_aliases=["compositor", "composite", "layer", "layers", "layer editor", "psd"],
            has_intermediate_output=True,
            is_output_node=True,
            is_experimental=True,
        )

    @classmethod
    def execute(cls, layers: Any, compositor: Any = None) -> io.NodeOutput:
        """Picture and mask. Raises ``ValueError`` for documents that cannot be read."""
        read = read_document(layers)
        arrangement = read_arrangement(compositor, read)
        previews = [one for layer in read for one in ui.PreviewImage(_preview(layer), cls=cls).values]
        picture, mask = torch.zeros(1, EMPTY_SIDE, EMPTY_SIDE, 3), torch.zeros(1, EMPTY_SIDE, EMPTY_SIDE)
        if read:
            picture, mask = compose(read, arrangement or initial_arrangement(read, canvas_of(layers)))
        shown = ui.PreviewImage(picture, cls=cls).as_dict()
        shown |= {"compositor_layers": previews, "compositor_inputs": [layer.fingerprint() for layer in read]}
        shown |= {"compositor_bboxes": [layer.shown() for layer in read]}
        if arrangement is None and compositor not in (None, "", "{}", {}):
            shown["compositor_state_stale"] = [True]
        return io.NodeOutput(picture, mask, ui=shown)


class AddLayer(io.ComfyNode):
    """Puts a picture on top of a document."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        optional: dict[str, Any] = {"optional": True}
        place: dict[str, Any] = {"default": 0, "min": -MAX_RESOLUTION, "max": MAX_RESOLUTION, **optional}
        length = {**place, "min": 0}
        before = [
            io.Layers.Input("layers", tooltip="What the layer is put on; nothing begins a new document.", **optional),
            io.Image.Input("image", tooltip="The layer; each image of a batch becomes one."),
            io.Mask.Input("mask", tooltip="Where the layer is transparent.", **optional),
            io.String.Input("name", default="", tooltip="Its name in the editor.", **optional),
        ]
        look = [
            io.Float.Input("opacity", default=1.0, min=0.0, max=1.0, step=0.01, tooltip="How opaque it is.", **optional),
            io.Combo.Input("blend_mode", options=list(MODES), default="normal", tooltip="How it meets what is below.", **optional),
            io.Float.Input("rotation", default=0.0, min=-FULL_TURN, max=FULL_TURN, step=1.0, tooltip="Degrees, clockwise.", **optional),
        ]
        order = io.Int.Input("z_index", default=0, min=-1000, max=1000, tooltip="Higher ones lie above lower ones.", **optional)
        flips = {"flip_h": "Left and right change places.", "flip_v": "Top and bottom change places."}
        return io.Schema(
            node_id="AddLayer",
            category="image",
            display_name="Add Layer",
            inputs=[
                *before,
                *(io.Int.Input(axis, tooltip="Where it begins, in pixels.", **place) for axis in ("x", "y")),
                *look,
                *(io.Int.Input(side, tooltip="Its size on the canvas; 0 is its own.", **length) for side in ("width", "height")),
                order,
                *(io.Boolean.Input(flip, default=False, tooltip=tooltip, **optional) for flip, tooltip in flips.items()),
            ],
            is_experimental=True,
            outputs=[io.Layers.Output(tooltip="The document.")],
        )

    @classmethod
    def execute(cls, image: Tensor, layers: Any = None, mask: Tensor | None = None, **look: Any) -> io.NodeOutput:
        """The document with the layer; *layers* stays as it is."""
        given = {key: look.get(key) for key in ("name", "blend_mode", "flip_h", "flip_v")}
        given |= {"w": look.get("width"), "h": look.get("height"), "rotation": math.radians(look.get("rotation") or 0.0), "mask": mask}
        item = {"image": image, "type": "raster", **{key: int(look.get(key) or 0) for key in ("x", "y", "z_index")}}
        item |= {key: value for key, value in given.items() if value is not None and not _is_default(key, value)}
        if look.get("opacity", 1.0) != 1.0:
            item["opacity"] = float(look["opacity"])
        return io.NodeOutput(_document([*_items(layers), item], canvas_of(layers)))


class LayersFromBoundingBoxes(io.ComfyNode):
    """Makes each image of a batch a layer, at the place of its box."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        side: dict[str, Any] = {
            "default": 0,
            "min": 0,
            "max": MAX_RESOLUTION,
            "optional": True,
            "tooltip": "Of the document's canvas; 0: what holds the layers.",
        }
        return io.Schema(
            node_id="LayersFromBoundingBoxes",
            display_name="Layers From Bounding Boxes",
            category="image",
            description="Makes each image of a batch a layer at the place of its own box.",
            is_experimental=True,
            inputs=[
                io.Image.Input("image", tooltip="The images."),
                io.MultiType.Input(
                    "bboxes",
                    [io.BoundingBox, io.Array, io.String],
                    tooltip="A box for each image: boxes, elements (which need the canvas) or JSON of them. Metadata may hold name, desc, "
                    "z_index and content_rect, the part of the image to use.",
                ),
                io.Mask.Input("mask", optional=True, tooltip="Where each image is transparent."),
                io.Layers.Input("layers", optional=True, tooltip="What the layers are put on; nothing begins a new document."),
                io.Boolean.Input("crop_to_content", default=True, optional=True, tooltip="Whether content_rect is cut out."),
                io.Int.Input("canvas_width", **side),
                io.Int.Input("canvas_height", **side),
            ],
            outputs=[io.Layers.Output(tooltip="The document.")],
        )

    @classmethod
    def execute(
        cls,
        image: Tensor,
        bboxes: Any,
        mask: Tensor | None = None,
        layers: Any = None,
        crop_to_content: bool = True,
        canvas_width: int = 0,
        canvas_height: int = 0,
    ) -> io.NodeOutput:
        """The document. Raises ``ValueError`` for boxes that cannot be read, or elements without a canvas."""
        if not (canvas_width and canvas_height) and '"bbox"' in (bboxes if isinstance(bboxes, str) else repr(bboxes).replace("'", '"')):
            raise ValueError("elements tell places in thousandths of the canvas; set canvas_width and canvas_height")
        boxes = read_boxes(bboxes, canvas_width, canvas_height)
        before = _items(layers)
        base = max((whole(item.get("z_index")) for item in before), default=-1) + 1
        items = [
            _boxed(
                image[number : number + 1],
                frame_of(mask, number),
                boxes[number] if number < len(boxes) else {},
                base + number,
                crop_to_content,
            )
            for number in range(len(image))
        ]
        canvas = (canvas_width, canvas_height) if canvas_width and canvas_height else canvas_of(layers)
        return io.NodeOutput(_document([*before, *items], canvas))


def _boxed(picture: Tensor, mask: Tensor | None, box: Box, height_order: int, crops: bool) -> dict[str, Any]:
    """The item of one image in its box."""
    metadata = box.get("metadata") or {}
    x, y = whole(box.get("x")), whole(box.get("y"))
    sides = {"w": whole(box.get("width")), "h": whole(box.get("height"))}
    if crops and (content := _content(metadata.get("content_rect"), picture)):
        left, top, right, bottom = content
        picture = picture[:, top:bottom, left:right]
        mask = None if mask is None else mask[:, top:bottom, left:right]
        x, y, sides = x + left, y + top, {}
    name = next((text for key in ("name", "desc") if isinstance(text := metadata.get(key), str) and text), None)
    item: dict[str, Any] = {"image": picture, "type": "raster", "x": x, "y": y, "z_index": whole(metadata.get("z_index"), height_order)}
    optional: dict[str, Any] = {"mask": mask, "name": name} | {key: length or None for key, length in sides.items()}
    return item | {key: value for key, value in optional.items() if value is not None}


def _content(rectangle: Any, picture: Tensor) -> tuple[int, int, int, int] | None:
    """Left, top, right and bottom of *rectangle* within *picture*; None when it is none, or empty there."""
    if not isinstance(rectangle, list | tuple) or len(rectangle) != 4:
        return None
    height, width = picture.shape[1:3]
    left, top = min(max(whole(rectangle[0]), 0), width), min(max(whole(rectangle[1]), 0), height)
    right, bottom = min(left + max(whole(rectangle[2]), 0), width), min(top + max(whole(rectangle[3]), 0), height)
    return (left, top, right, bottom) if left < right and top < bottom else None


def _is_default(key: str, value: Any) -> bool:
    return value == "normal" if key == "blend_mode" else key != "mask" and not value


def _items(document: Any) -> list[Any]:
    return list(document.get("layers") or []) if isinstance(document, dict) else []


def _document(items: list[Any], canvas: tuple[int, int] | None) -> dict[str, Any]:
    return {"version": VERSION, "layers": items} | ({"canvas": canvas} if canvas else {})


def _preview(layer: Layer) -> Tensor:
    colours = layer.picture[..., :3]
    return colours if layer.alpha is None else torch.cat([colours, layer.alpha.unsqueeze(-1).to(colours)], dim=-1)


class CompositorExtension(ComfyExtension):
    """The nodes of this module."""

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        """The node classes."""
        return [ImageCompositor, AddLayer, LayersFromBoundingBoxes]


async def comfy_entrypoint() -> CompositorExtension:
    """What the server loads."""
    return CompositorExtension()
