"""The picture that shows regions on their canvas: outlines, numbers, colours and descriptions over a darkened background."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from comfy.lazy_import import lazy_module
from comfy_extras.box_values import MOST_COLOURS, Box
from comfy_extras.colours import RGB, luminance, readable, rgb_levels

if TYPE_CHECKING:
    from torch import Tensor

numpy = lazy_module("numpy")
pil_draw = lazy_module("PIL.ImageDraw")
pil_enhance = lazy_module("PIL.ImageEnhance")
pil_font = lazy_module("PIL.ImageFont")
pil_image = lazy_module("PIL.Image")
torch = lazy_module("torch")

LONGER_SIDE = 1024
BRIGHTNESS = 0.25
NO_COLOUR: RGB = (140, 140, 140)
EMPTY_GREY = 128
DARK_TAG_FROM = 140  # tags brighter than this have black numbers


def draw_regions(regions: Iterable[Box], width: int, height: int, background_HWC: Tensor | None = None) -> Tensor:
    """1×H×W×3 in 0…1 on the CPU, at most 1024 pixels wide and high; of *background_HWC*'s shape, else of *width* by *height*."""
    canvas = _Canvas(_plain(width, height) if background_HWC is None else _darkened(background_HWC))
    for number, region in enumerate(regions, 1):
        canvas.draw(region, number)
    return torch.from_numpy(numpy.asarray(canvas.picture, dtype=numpy.float32) / 255.0).unsqueeze(0)


class _Canvas:
    """A picture on which regions are drawn; the size of the writing follows its height."""

    def __init__(self, picture: Any) -> None:
        self.picture = picture
        self._pen = pil_draw.Draw(picture)
        self._size = max(10, round(picture.height / 64))
        self._font = pil_font.load_default(self._size)
        self._tag_font = pil_font.load_default(max(9, self._size - 2))

    def draw(self, region: Box, number: int) -> None:
        """Add *region*, which *number* names."""
        colours = [rgb_levels(colour) for colour in region["palette"] or [] if colour]
        colour = colours[0] if colours else NO_COLOUR
        left, right = self._ends(region["x"], region["w"], self.picture.width)
        top, bottom = self._ends(region["y"], region["h"], self.picture.height)
        self._pen.rectangle([left, top, right, bottom], outline=colour, width=2)
        if right - left > 2:
            self._swatches(colours[:MOST_COLOURS], left, top, right)
        tag = f"{number:02}"
        end = left + self._pen.textlength(tag, font=self._tag_font) + 6
        self._pen.rectangle([left, top, end, top + self._size + 2], fill=colour)
        tag_colour = (0, 0, 0) if luminance(colour) > DARK_TAG_FROM else (255, 255, 255)
        self._pen.text((left + 3, top + 1), tag, fill=tag_colour, font=self._tag_font)
        if right - left > 8:
            self._describe(_description(region), readable(colour), left, top, right, bottom)

    def _ends(self, start: float, length: float, size: int) -> list[int]:
        return sorted(max(0, min(size, round(share * size))) for share in (start, start + length))

    def _swatches(self, colours: list[RGB], left: int, top: int, right: int) -> None:
        for position, colour in enumerate(colours):
            start, end = (left + round((position + step) * (right - left) / len(colours)) for step in (0, 1))
            self._pen.rectangle([start, top, end, top + max(5, self._size // 2)], fill=colour)

    def _describe(self, text: str, colour: RGB, left: int, top: int, right: int, bottom: int) -> None:
        line_top = top + self._size + 5
        for line in self._lines(text, right - left - 8) if text else ():
            if line_top > bottom:
                break
            self._pen.text((left + 4, line_top), line, fill=colour, font=self._font)
            line_top += self._size + 2

    def _lines(self, text: str, width: float) -> list[str]:
        lines = []
        for paragraph in text.split("\n"):
            line = ""
            for word in paragraph.split():
                longer = f"{line} {word}" if line else word
                if line and self._pen.textlength(longer, font=self._font) > width:
                    lines.append(line)
                    longer = word
                line = longer
            lines.append(line)
        return lines


def _description(region: Box) -> str:
    told = region["desc"] or ""
    if region["type"] == "text" and region["text"]:
        return f'"{region["text"]}" — {told}' if told else f'"{region["text"]}"'
    return told


def _fitted(width: int, height: int) -> tuple[int, int]:
    scale = min(1.0, LONGER_SIDE / (max(width, height) or 1))
    return max(1, round(width * scale)), max(1, round(height * scale))


def _plain(width: int, height: int) -> Any:
    return pil_image.new("RGB", _fitted(width, height), (round(EMPTY_GREY * BRIGHTNESS),) * 3)


def _darkened(image_HWC: Tensor) -> Any:
    levels = (image_HWC[..., :3].cpu().float().numpy() * 255).clip(0, 255).astype(numpy.uint8)
    picture = pil_image.fromarray(levels)
    resized = picture.resize(_fitted(*picture.size), pil_image.Resampling.LANCZOS)
    return pil_enhance.Brightness(resized).enhance(BRIGHTNESS)
