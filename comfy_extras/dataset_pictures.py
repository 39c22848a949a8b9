"""Nodes that resize, cut, adjust, sort out and arrange the pictures of a dataset (part of ``nodes_dataset``)."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from comfy.lazy_import import lazy_module
from comfy_api.latest import io
from comfy_extras.dataset_bases import PictureNode, from_picture, picture_of, random_numbers, seed_input

if TYPE_CHECKING:
    from torch import Tensor

numpy = lazy_module("numpy")
pil_image = lazy_module("PIL.Image")
log = logging.getLogger(__name__)

LARGEST_EDGE = 8192
HASH_SIDE = 8
_CROPPING = ("crop", "cut", "trim")


class ResizeImagesByShorterEdge(PictureNode):
    """Scales pictures so that their shorter edge has a length."""

    NODE_ID = "ResizeImagesByShorterEdge"
    TITLE = "Resize Images by Shorter Edge (DEPRECATED)"
    CATEGORY_NAME = "image/transform"
    TELLS = "Scales images until their shorter edge has the given length."
    IS_OLD = True

    @classmethod
    def settings(cls) -> list[io.Input]:
        return [_edge("shorter_edge", 512)]

    @classmethod
    def change(cls, picture: Tensor, **settings: int) -> Tensor:
        height, width = picture.shape[1:3]
        length = settings["shorter_edge"]
        return _resized(picture, *_scaled(width, height, length / min(width, height), length, is_width=width < height))


class ResizeImagesByLongerEdge(PictureNode):
    """Scales pictures so that their longer edge has a length."""

    NODE_ID = "ResizeImagesByLongerEdge"
    TITLE = "Resize Images by Longer Edge (DEPRECATED)"
    CATEGORY_NAME = "image/transform"
    TELLS = "Scales images until their longer edge has the given length."
    IS_OLD = True

    @classmethod
    def settings(cls) -> list[io.Input]:
        return [_edge("longer_edge", 1024)]

    @classmethod
    def change(cls, picture: Tensor, **settings: int) -> Tensor:
        height, width = picture.shape[1:3]
        length = settings["longer_edge"]
        return _resized(picture, *_scaled(width, height, length / max(width, height), length, is_width=width > height))


class CenterCropImages(PictureNode):
    """Cuts the middle out of pictures."""

    NODE_ID = "CenterCropImages"
    TITLE = "Crop Image (Center)"
    CATEGORY_NAME = "image/transform"
    TELLS = "Cuts the middle out of images; smaller images stay as they are."
    ALIASES = _CROPPING

    @classmethod
    def settings(cls) -> list[io.Input]:
        return [_edge("width", 512), _edge("height", 512)]

    @classmethod
    def change(cls, picture: Tensor, **settings: int) -> Tensor:
        left, top = (max(0, (picture.shape[axis] - settings[side]) // 2) for axis, side in ((2, "width"), (1, "height")))
        return _in_8_bits(picture[:, top : top + settings["height"], left : left + settings["width"]])


class RandomCropImages(PictureNode):
    """Cuts pieces out of pictures, at places by chance."""

    NODE_ID = "RandomCropImages"
    TITLE = "Crop Image (Random)"
    CATEGORY_NAME = "image/transform"
    TELLS = "Cuts a piece out of images, at a place that the seed decides; smaller images stay as they are."
    ALIASES = _CROPPING

    @classmethod
    def settings(cls) -> list[io.Input]:
        return [_edge("width", 512), _edge("height", 512), seed_input()]

    @classmethod
    def change(cls, picture: Tensor, **settings: int) -> Tensor:
        numbers = random_numbers(settings["seed"])
        rests = [max(0, picture.shape[axis] - settings[side]) for axis, side in ((2, "width"), (1, "height"))]
        left, top = (numbers.randint(0, rest + 1) if rest else 0 for rest in rests)
        return _in_8_bits(picture[:, top : top + settings["height"], left : left + settings["width"]])


class NormalizeImages(PictureNode):
    """Subtracts a mean and divides by a standard deviation."""

    NODE_ID = "NormalizeImages"
    TITLE = "Normalize Image Colors"
    CATEGORY_NAME = "image/color"
    TELLS = "Subtracts the mean from all values and divides by the standard deviation."
    ALIASES = ("normalize", "normalize colors")
    WHOLE_BATCH = True

    @classmethod
    def settings(cls) -> list[io.Input]:
        return [
            io.Float.Input("mean", default=0.5, min=0.0, max=1.0, tooltip="What is subtracted.", advanced=True),
            io.Float.Input("std", default=0.5, min=0.001, max=1.0, tooltip="What is divided by.", advanced=True),
        ]

    @classmethod
    def change(cls, picture: Tensor, **settings: float) -> Tensor:
        return (picture - settings["mean"]) / settings["std"]


class AdjustBrightness(PictureNode):
    """Makes pictures brighter or darker."""

    NODE_ID = "AdjustBrightness"
    TITLE = "Adjust Brightness"
    CATEGORY_NAME = "image/adjustments"
    TELLS = "Makes images brighter or darker."
    ALIASES = ("brightness",)
    WHOLE_BATCH = True

    @classmethod
    def settings(cls) -> list[io.Input]:
        return [io.Float.Input("factor", default=1.0, min=0.0, max=2.0, tooltip="Above 1 is brighter, below darker.")]

    @classmethod
    def change(cls, picture: Tensor, **settings: float) -> Tensor:
        return (picture * settings["factor"]).clamp(0.0, 1.0)


class AdjustContrast(PictureNode):
    """Raises or lowers the contrast about middle grey."""

    NODE_ID = "AdjustContrast"
    TITLE = "Adjust Contrast"
    CATEGORY_NAME = "image/adjustments"
    TELLS = "Raises or lowers the contrast of images."
    ALIASES = ("contrast",)
    WHOLE_BATCH = True

    @classmethod
    def settings(cls) -> list[io.Input]:
        return [io.Float.Input("factor", default=1.0, min=0.0, max=2.0, tooltip="Above 1 is more contrast, below less.")]

    @classmethod
    def change(cls, picture: Tensor, **settings: float) -> Tensor:
        return ((picture - 0.5) * settings["factor"] + 0.5).clamp(0.0, 1.0)


class ShuffleDataset(PictureNode):
    """Puts pictures into another order."""

    NODE_ID = "ShuffleDataset"
    TITLE = "Shuffle Images List"
    CATEGORY_NAME = "image/batch"
    TELLS = "Puts the images of a list into an order that the seed decides."
    ALIASES = ("shuffle", "randomize", "mix")
    TAKES_LIST = True

    @classmethod
    def settings(cls) -> list[io.Input]:
        return [seed_input()]

    @classmethod
    def change_all(cls, pictures: list[Tensor], **settings: int) -> list[Tensor]:
        return [pictures[index] for index in random_numbers(settings["seed"]).permutation(len(pictures))]


class ImageDeduplication(PictureNode):
    """Leaves out pictures that look like an earlier one."""

    NODE_ID = "ImageDeduplication"
    TITLE = "Deduplicate Images"
    CATEGORY_NAME = "image/batch"
    TELLS = "Leaves out images that look like an earlier one of the list."
    ALIASES = ("deduplicate", "remove duplicates", "similarity filter")
    TAKES_LIST = True

    @classmethod
    def settings(cls) -> list[io.Input]:
        tooltip = "From which share of equal bits in their average hashes two images count as the same."
        return [io.Float.Input("similarity_threshold", default=0.95, min=0.0, max=1.0, tooltip=tooltip, advanced=True)]

    @classmethod
    def change_all(cls, pictures: list[Tensor], **settings: float) -> list[Tensor]:
        kept: list[tuple[Any, Tensor]] = []
        for picture in pictures:
            own = _average_hash(picture)
            if all((own == other).mean() < settings["similarity_threshold"] for other, _ in kept):
                kept.append((own, picture))
        log.info("Of %d images %d are kept", len(pictures), len(kept))
        return [picture for _, picture in kept]


class ImageGrid(PictureNode):
    """Arranges pictures in rows and columns."""

    NODE_ID = "ImageGrid"
    TITLE = "Make Image Grid"
    CATEGORY_NAME = "image/batch"
    TELLS = "Arranges images in rows and columns on black."
    ALIASES = ("grid", "collage", "combine")
    TAKES_LIST = True
    GIVES_LIST = False

    @classmethod
    def settings(cls) -> list[io.Input]:
        return [
            io.Int.Input("columns", default=4, min=1, max=20, tooltip="Images in a row."),
            io.Int.Input("cell_width", default=256, min=32, max=2048, tooltip="Width of each image.", advanced=True),
            io.Int.Input("cell_height", default=256, min=32, max=2048, tooltip="Height of each image.", advanced=True),
            io.Int.Input("padding", default=4, min=0, max=50, tooltip="Pixels between images.", advanced=True),
        ]

    @classmethod
    def change_all(cls, pictures: list[Tensor], **settings: int) -> Tensor:
        columns, padding = settings["columns"], settings["padding"]
        size = (settings["cell_width"], settings["cell_height"])
        if not pictures:
            raise ValueError("there are no images to arrange")
        rows = -(-len(pictures) // columns)
        grid = pil_image.new("RGB", tuple(count * side + (count - 1) * padding for count, side in zip((columns, rows), size)))
        for number, picture in enumerate(pictures):
            row, column = divmod(number, columns)
            cell = picture_of(picture).resize(size, pil_image.Resampling.LANCZOS)
            grid.paste(cell, (column * (size[0] + padding), row * (size[1] + padding)))
        return from_picture(grid)


class MergeImageLists(PictureNode):
    """Makes one list of several."""

    NODE_ID = "MergeImageLists"
    TITLE = "Merge Image Lists (DEPRECATED)"
    CATEGORY_NAME = "image/batch"
    TELLS = "Makes one list of the lists that are connected."
    ALIASES = ("list", "merge list", "make list")
    IS_OLD = True
    TAKES_LIST = True

    @classmethod
    def change_all(cls, pictures: list[Tensor], **settings: Any) -> list[Tensor]:
        return pictures


PICTURE_NODES: tuple[type[PictureNode], ...] = (
    ResizeImagesByShorterEdge,
    ResizeImagesByLongerEdge,
    CenterCropImages,
    RandomCropImages,
    NormalizeImages,
    AdjustBrightness,
    AdjustContrast,
    ShuffleDataset,
    ImageDeduplication,
    ImageGrid,
    MergeImageLists,
)


def _edge(name: str, default: int) -> io.Int.Input:
    return io.Int.Input(name, default=default, min=1, max=LARGEST_EDGE, tooltip="In pixels.")


def _scaled(width: int, height: int, scale: float, length: int, is_width: bool) -> tuple[int, int]:
    """The sides times *scale*, cut to whole pixels; the one that *is_width* names is *length* exactly."""
    return (length, max(1, int(height * scale))) if is_width else (max(1, int(width * scale)), length)


def _resized(picture: Tensor, width: int, height: int) -> Tensor:
    return from_picture(picture_of(picture).resize((width, height), pil_image.Resampling.LANCZOS))


def _in_8_bits(picture: Tensor) -> Tensor:
    return from_picture(picture_of(picture))


def _average_hash(picture: Tensor) -> Any:
    """64 bits: where the picture, at 8×8 grey pixels, is brighter than on average."""
    small = picture_of(picture).resize((HASH_SIDE, HASH_SIDE), pil_image.Resampling.LANCZOS).convert("L")
    levels = numpy.asarray(small, dtype=numpy.float64).ravel()
    return levels > levels.mean()
