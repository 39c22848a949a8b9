"""Nodes that crop, rotate and pad images, count them, add noise, and save animations and drawings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from comfy.lazy_import import lazy_module
from comfy_api.latest import io, ui
from comfy_extras.advanced_saving_node import SaveImageAdvanced
from comfy_extras.animated_image_nodes import SaveAnimatedPNG, SaveAnimatedWEBP
from comfy_extras.core_images import resize_images
from comfy_extras.image_stitching_nodes import ImageStitch
from comfy_extras.image_tile_nodes import ImageMergeTileList, SplitImageToTileList
from comfy_extras.mask_crop_node import ImageCropToMask
from comfy_extras.node_inputs import MAX_RESOLUTION, combo, pixels, real, socket, whole
from comfy_extras.svg_nodes import SaveSVGNode

if TYPE_CHECKING:
    from torch import Tensor

server = lazy_module("server")
torch = lazy_module("torch")

CROP_SIZE = 512
_QUARTER_TURNS = ["none", "90 degrees", "180 degrees", "270 degrees"]


class _ImageNode:
    """Attributes that most nodes of this module share."""

    RETURN_TYPES = ("IMAGE",)
    FUNCTION = "execute"
    CATEGORY = "image/transform"


def crop_image(image: Tensor, width: int, height: int, x: int, y: int) -> Tensor:
    """The rectangle at (*x*, *y*) of B×H×W×C images. It is moved inside if it starts beyond their edges, and cut at the edges."""
    left, top = min(x, image.shape[2] - 1), min(y, image.shape[1] - 1)
    return image[:, top : top + height, left : left + width]


class ImageCrop(_ImageNode):
    """Cuts a rectangle out of images."""

    ESSENTIALS_CATEGORY = "Image Tools"
    DEPRECATED = True
    SEARCH_ALIASES = ["trim"]

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "image": socket("IMAGE"),
                "width": pixels(CROP_SIZE, 1),
                "height": pixels(CROP_SIZE, 1),
                "x": pixels(0),
                "y": pixels(0),
            }
        }

    @classmethod
    def execute(cls, image: Tensor, width: int, height: int, x: int, y: int) -> tuple[Tensor]:
        return (crop_image(image, width, height, x, y),)

    crop = execute


class ImageCropV2(io.ComfyNode):
    """Cuts a rectangle, drawn on the page, out of images and shows the result."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        whole_region = {"x": 0, "y": 0, "width": CROP_SIZE, "height": CROP_SIZE}
        return io.Schema(
            node_id="ImageCropV2",
            display_name="Crop Image",
            category="image/transform",
            essentials_category="Image Tools",
            description="Cuts a rectangle out of images.",
            search_aliases=["crop", "cut", "trim"],
            has_intermediate_output=True,
            inputs=[
                io.Image.Input("image"),
                io.BoundingBox.Input("crop_region", socketless=True, component="ImageCrop", default=whole_region),
            ],
            outputs=[io.Image.Output()],
        )

    @classmethod
    def execute(cls, image: Tensor, crop_region: dict[str, int]) -> io.NodeOutput:
        width, height = (crop_region.get(side, CROP_SIZE) for side in ("width", "height"))
        cropped = crop_image(image, width, height, crop_region.get("x", 0), crop_region.get("y", 0))
        return io.NodeOutput(cropped, ui=ui.PreviewImage(cropped))


class BoundingBox(_ImageNode):
    """Returns a rectangle."""

    RETURN_TYPES = ("BOUNDING_BOX",)
    CATEGORY = "utilities/primitive"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "x": whole(0, 0, MAX_RESOLUTION),
                "y": whole(0, 0, MAX_RESOLUTION),
                "width": whole(CROP_SIZE, 1, MAX_RESOLUTION),
                "height": whole(CROP_SIZE, 1, MAX_RESOLUTION),
            }
        }

    @classmethod
    def execute(cls, x: int, y: int, width: int, height: int) -> tuple[dict[str, int]]:
        """The rectangle as a dict."""
        return ({"x": x, "y": y, "width": width, "height": height},)


class RepeatImageBatch(_ImageNode):
    """Repeats a batch."""

    CATEGORY = "image/batch"
    SEARCH_ALIASES = ["duplicate image", "clone image"]

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"image": socket("IMAGE"), "amount": whole(1, 1, 4096)}}

    @classmethod
    def execute(cls, image: Tensor, amount: int) -> tuple[Tensor]:
        """The batch *amount* times."""
        return (image.repeat(amount, 1, 1, 1),)

    repeat = execute


class ImageFromBatch(_ImageNode):
    """Takes some images out of a batch."""

    CATEGORY = "image/batch"
    SEARCH_ALIASES = ["select image", "pick from batch", "extract image"]

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {"image": socket("IMAGE"), "batch_index": whole(0, -MAX_RESOLUTION, MAX_RESOLUTION), "length": whole(1, 1, 4096)}
        }

    @classmethod
    def execute(cls, image: Tensor, batch_index: int, length: int) -> tuple[Tensor]:
        """*length* images from *batch_index* on; a negative index counts from the end, and one beyond it means the last."""
        count = image.shape[0]
        first = min(count - 1, max(0, batch_index + count if batch_index < 0 else batch_index))
        return (image[first : first + length].clone(),)

    frombatch = execute


class ImageAddNoise(_ImageNode):
    """Adds Gaussian noise to images."""

    CATEGORY = "image/filters"
    SEARCH_ALIASES = ["film grain"]

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        seed = whole(0, 0, 0xFFFFFFFFFFFFFFFF, control_after_generate=True, tooltip="Equal seeds give equal noise.")
        return {"required": {"image": socket("IMAGE"), "seed": seed, "strength": real(0.5, 0.0, 1.0)}}

    @classmethod
    def execute(cls, image: Tensor, seed: int, strength: float) -> tuple[Tensor]:
        """The images plus noise with standard deviation *strength*, drawn on the CPU; clipped to 0…1."""
        noise = torch.randn(image.shape, generator=torch.Generator("cpu").manual_seed(seed), device="cpu").to(image)
        return (torch.clip(image + strength * noise, min=0.0, max=1.0),)

    repeat = execute


class ResizeAndPadImage(_ImageNode):
    """Fits images into a size and adds bars where the aspect ratios differ."""

    SEARCH_ALIASES = ["fit to size"]

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        methods = ["area", "bicubic", "nearest-exact", "bilinear", "lanczos"]
        return {
            "required": {
                "image": socket("IMAGE"),
                "target_width": pixels(512, 1),
                "target_height": pixels(512, 1),
                "padding_color": combo(["white", "black"], advanced=True),
                "interpolation": combo(methods, advanced=True),
            }
        }

    @classmethod
    def execute(cls, image: Tensor, target_width: int, target_height: int, padding_color: str, interpolation: str) -> tuple[Tensor]:
        """B×*target_height*×*target_width*×C with the scaled images in the middle."""
        batch, height, width, channels = image.shape
        scale = min(target_width / width, target_height / height)
        new_width, new_height = int(width * scale), int(height * scale)
        left, top = (target_width - new_width) // 2, (target_height - new_height) // 2
        padded = image.new_full((batch, target_height, target_width, channels), 0.0 if padding_color == "black" else 1.0)
        padded[:, top : top + new_height, left : left + new_width] = resize_images(image, new_width, new_height, interpolation)
        return (padded,)

    resize_and_pad = execute


class GetImageSize(io.ComfyNode):
    """Returns the size of images."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="GetImageSize",
            display_name="Get Image Size",
            category="image",
            hidden=[io.Hidden.unique_id],
            description="Gives width, height and number of the images.",
            search_aliases=["dimensions", "resolution", "image info"],
            inputs=[io.Image.Input("image")],
            outputs=[io.Int.Output(display_name=name) for name in ("width", "height", "batch_size")],
        )

    @classmethod
    def execute(cls, image: Tensor) -> io.NodeOutput:
        """Width, height and batch size, which are also shown on the node while a page is connected."""
        count, height, width = image.shape[:3]
        present = getattr(server.PromptServer, "instance", None)
        if present is not None and cls.hidden.unique_id:
            present.send_progress_text(f"width: {width}, height: {height}\n batch size: {count}", cls.hidden.unique_id)
        return io.NodeOutput(width, height, count)

    get_size = execute


class ImageRotate(_ImageNode):
    """Rotates images clockwise by quarter turns."""

    ESSENTIALS_CATEGORY = "Image Tools"
    SEARCH_ALIASES = ["turn", "flip orientation"]

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"image": socket("IMAGE"), "rotation": combo(_QUARTER_TURNS)}}

    @classmethod
    def execute(cls, image: Tensor, rotation: str) -> tuple[Tensor]:
        """The rotated images."""
        return (torch.rot90(image, k=_QUARTER_TURNS.index(rotation), dims=[2, 1]),)

    rotate = execute


class ImageFlip(_ImageNode):
    """Mirrors images."""

    SEARCH_ALIASES = ["mirror", "reflect"]

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"image": socket("IMAGE"), "flip_method": combo(["x-axis: vertically", "y-axis: horizontally"])}}

    @classmethod
    def execute(cls, image: Tensor, flip_method: str) -> tuple[Tensor]:
        """The images upside down (``x-axis…``) or left to right."""
        return (torch.flip(image, dims=[1 if flip_method.startswith("x") else 2]),)

    flip = execute


class ImageScaleToMaxDimension(_ImageNode):
    """Resizes images so that their longer side has a given length."""

    CATEGORY = "image/upscaling"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        methods = ["area", "lanczos", "bilinear", "nearest-exact", "bilinear", "bicubic"]
        return {"required": {"image": socket("IMAGE"), "upscale_method": combo(methods), "largest_size": pixels(512)}}

    @classmethod
    def execute(cls, image: Tensor, upscale_method: str, largest_size: int) -> tuple[Tensor]:
        """The resized images, with the same aspect ratio."""
        height, width = image.shape[1:3]
        longest = max(height, width)
        new_width, new_height = (largest_size if side == longest else round(side / longest * largest_size) for side in (width, height))
        return (resize_images(image, new_width, new_height, upscale_method),)

    upscale = execute


_NODES = (
    GetImageSize,
    ImageAddNoise,
    ImageCrop,
    ImageCropToMask,
    ImageCropV2,
    ImageFlip,
    ImageFromBatch,
    ImageMergeTileList,
    ImageRotate,
    ImageScaleToMaxDimension,
    ImageStitch,
    RepeatImageBatch,
    ResizeAndPadImage,
    SaveAnimatedPNG,
    SaveAnimatedWEBP,
    SaveImageAdvanced,
    SaveSVGNode,
    SplitImageToTileList,
)

NODE_CLASS_MAPPINGS = {"PrimitiveBoundingBox": BoundingBox, **{node.__name__: node for node in _NODES}}

NODE_DISPLAY_NAME_MAPPINGS = {
    "PrimitiveBoundingBox": "Bounding Box",
    "ImageCrop": "Crop Image (DEPRECATED)",
    "ImageCropV2": "Crop Image",
    "ImageCropToMask": "Crop Image to Mask",
    "SaveImageAdvanced": "Save Image (Advanced)",
    "RepeatImageBatch": "Repeat Image Batch",
    "ImageFromBatch": "Get Image from Batch",
    "ImageAddNoise": "Add Noise to Image",
    "SaveAnimatedWEBP": "Save Animated WEBP",
    "SaveAnimatedPNG": "Save Animated PNG",
    "SaveSVGNode": "Save SVG",
    "ImageStitch": "Stitch Images",
    "ResizeAndPadImage": "Resize And Pad Image",
    "GetImageSize": "Get Image Size",
    "ImageRotate": "Rotate Image",
    "ImageFlip": "Flip Image",
    "ImageScaleToMaxDimension": "Scale Image to Max Dimension",
    "SplitImageToTileList": "Split Image into List of Tiles",
    "ImageMergeTileList": "Merge List of Tiles to Image",
}
