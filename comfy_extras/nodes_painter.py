"""The node on whose canvas people paint."""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING, Any

import folder_paths
from comfy.images.picture_files import open_picture, reading_picture
from comfy.lazy_import import lazy_module
from comfy_api.latest import ComfyExtension, io, ui
from comfy_extras.colours import rgb_fractions

if TYPE_CHECKING:
    from torch import Tensor

numpy = lazy_module("numpy")
pil_image = lazy_module("PIL.Image")
torch = lazy_module("torch")

CANVAS = {"widgetType": "PAINTER", "image_upload": True}  # what makes the page show one


class Painter(io.ComfyNode):
    """Puts what was painted on the page over an image or a plain colour."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        own = io.Image.Input("image", optional=True, tooltip="A picture to paint on; only the first of a batch.")
        canvas = io.String.Input("mask", default="", socketless=True, extra_dict=CANVAS)
        return io.Schema(
            node_id="Painter",
            display_name="Painter",
            category="image",
            inputs=[own, canvas, _side("width"), _side("height"), io.Color.Input("bg_color", default="#000000")],
            outputs=[io.Image.Output("IMAGE"), io.Mask.Output("MASK")],
            has_intermediate_output=True,
        )

    @classmethod
    def execute(cls, mask: str, width: int, height: int, bg_color: str = "#000000", image: Tensor | None = None) -> io.NodeOutput:
        """The picture (1×H×W×C) and where it was painted (1×H×W). *mask* names what was painted, a file of the input folder, or is empty.

        Raises ``ValueError`` or ``FileNotFoundError`` when it cannot be read.
        """
        below = torch.tensor(rgb_fractions(bg_color)).expand(1, height, width, 3) if image is None else image[:1].cpu()
        if not mask.strip():
            return _shown(below.clone(), torch.zeros(below.shape[:3]))
        painted = _painted(folder_paths.get_annotated_filepath(mask), below.shape[2], below.shape[1])
        colours, cover = painted[..., :3], painted[..., 3:]
        return _shown(colours * cover + below[..., :3] * (1.0 - cover), cover[..., 0])

    @classmethod
    def fingerprint_inputs(cls, mask: str, **other: Any) -> str:
        """A digest of the painted picture, so that painting anew is noticed."""
        path = folder_paths.get_annotated_filepath(mask) if mask.strip() else ""
        if not path or not os.path.isfile(path):
            return ""
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()


def _side(name: str) -> io.Int.Input:
    return io.Int.Input(name, default=512, min=64, max=4096, step=64, socketless=True, extra_dict={"hidden": True})


def _painted(path: str, width: int, height: int) -> Tensor:
    """The picture of a file as 1×*height*×*width*×4."""
    with open_picture(path) as opened, reading_picture():
        picture = opened.convert("RGBA")
    if picture.size != (width, height):
        picture = picture.resize((width, height), pil_image.Resampling.LANCZOS)
    return torch.from_numpy(numpy.asarray(picture, dtype=numpy.float32) / 255.0).unsqueeze(0)


def _shown(picture: Tensor, mask: Tensor) -> io.NodeOutput:
    return io.NodeOutput(picture, mask, ui=ui.PreviewImage(picture))


class PainterExtension(ComfyExtension):
    """The node of this module."""

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        """The node classes."""
        return [Painter]


async def comfy_entrypoint() -> PainterExtension:
    """What the server loads."""
    return PainterExtension()
