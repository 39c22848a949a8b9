"""The node that saves pictures in a chosen format and depth (part of ``nodes_images``)."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import folder_paths
from comfy_api.latest import io
from comfy_extras import deep_image_writing, image_writing

if TYPE_CHECKING:
    from torch import Tensor


class SaveImageAdvanced(io.ComfyNode):
    """Saves pictures as PNG with 8 or 16 bits per channel, or as OpenEXR."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SaveImageAdvanced",
            display_name="Save Image (Advanced)",
            category="image",
            essentials_category="Basics",
            description="Saves images to the output folder as PNG or OpenEXR.",
            search_aliases=["save", "save image", "export image", "output image", "write image"],
            inputs=[
                io.Image.Input("images", tooltip="What to save."),
                io.String.Input(
                    "filename_prefix",
                    default="ComfyUI",
                    tooltip="How file names begin; %date:yyyy-MM-dd% and other nodes' values (%Empty Latent Image.width%) are filled in.",
                ),
                io.DynamicCombo.Input("format", options=[_png_options(), _exr_options()], tooltip="The kind of file."),
            ],
            hidden=[io.Hidden.prompt, io.Hidden.extra_pnginfo],
            is_output_node=True,
            outputs=[io.Image.Output(display_name="images")],
        )

    @classmethod
    def execute(cls, images: Tensor, filename_prefix: str, format: dict[str, Any]) -> io.NodeOutput:
        """*images* as they came; one file each. Raises ``ImportError`` naming the package that a format needs."""
        height, width = images[0].shape[:2]
        folder, name, counter, subfolder, _ = folder_paths.get_save_image_path(
            filename_prefix, folder_paths.get_output_directory(), width, height
        )
        texts = image_writing.metadata_texts(cls.hidden.prompt, cls.hidden.extra_pnginfo)
        saved = []
        for number, image in enumerate(images):
            file_name = f"{name.replace('%batch_num%', str(number))}_{counter + number:05}.{format['format']}"
            _save(os.path.join(folder, file_name), image if image.ndim == 3 else image[..., None], format, texts)
            saved.append({"filename": file_name, "subfolder": subfolder, "type": "output"})
        return io.NodeOutput(images, ui={"images": saved})


def _save(path: str, image_HWC: Tensor, chosen: dict[str, Any], texts: dict[str, str]) -> None:
    if chosen["format"] == "exr":
        deep_image_writing.save_exr(path, image_HWC, texts, chosen.get("input_color_space", "sRGB"))
    elif chosen["bit_depth"] == "16-bit":
        deep_image_writing.save_png16(path, image_HWC, texts)
    else:
        image_writing.save_png(path, image_writing.to_picture(image_HWC), texts)


def _png_options() -> io.DynamicCombo.Option:
    return io.DynamicCombo.Option(
        "png",
        [
            io.Combo.Input("bit_depth", options=["8-bit", "16-bit"], default="8-bit", advanced=True),
            io.Combo.Input("input_color_space", options=["sRGB"], default="sRGB", advanced=True),
        ],
    )


def _exr_options() -> io.DynamicCombo.Option:
    meaning = (
        "What the images' values are; the file holds linear light.\nsRGB: ordinary pictures. HDR: hybrid log-gamma, BT.2020. "
        "linear: light already, written as it is."
    )
    return io.DynamicCombo.Option(
        "exr",
        [
            io.Combo.Input("bit_depth", options=["32-bit float"], default="32-bit float", advanced=True),
            io.Combo.Input("input_color_space", options=["sRGB", "HDR", "linear"], default="sRGB", advanced=True, tooltip=meaning),
        ],
    )
