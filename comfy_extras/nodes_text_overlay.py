"""The node that writes text onto images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from comfy.lazy_import import lazy_module
from comfy_api.latest import ComfyExtension, io

if TYPE_CHECKING:
    from torch import Tensor

numpy = lazy_module("numpy")
pil_colour = lazy_module("PIL.ImageColor")
pil_draw = lazy_module("PIL.ImageDraw")
pil_font = lazy_module("PIL.ImageFont")
pil_image = lazy_module("PIL.Image")
torch = lazy_module("torch")

MARGIN = 0.01  # of the shorter side
LINE_DISTANCE = 1.2  # in font sizes
OUTLINE = 0.04  # in font sizes
SMALLEST_SHARE, SMALLEST_PIXELS = 0.02, 10  # of the height; text that does not fit shrinks no further than the larger of both
SHRINK = 0.9
OPAQUE_BLACK, INVISIBLE = (0, 0, 0, 255), (0, 0, 0, 0)


class TextOverlay(io.ComfyNode):
    """Writes text onto images, at the top or the bottom."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="TextOverlay",
            display_name="Draw Text Overlay",
            category="text",
            description="Writes text onto images.",
            search_aliases=["text", "label", "caption", "subtitle", "watermark", "title", "addlabel", "overlay"],
            inputs=[
                io.Image.Input("images"),
                io.String.Input("text", multiline=True, default=""),
                io.Float.Input("font_size", default=5.0, min=0.5, max=50.0, step=0.5, tooltip="In percent of the images' height."),
                io.Color.Input("color", default="#ffffff", tooltip="The text's color."),
                io.Combo.Input("position", options=["top", "bottom"], default="top"),
                io.Combo.Input("align", options=["left", "center", "right"], default="left"),
                io.Boolean.Input("outline", default=True, tooltip="Whether the letters have black outlines."),
            ],
            outputs=[io.Image.Output(display_name="images")],
        )

    @classmethod
    def execute(cls, images: Tensor, text: str, font_size: float, color: str, position: str, align: str, outline: bool) -> io.NodeOutput:
        """*images* with *text*, in which ``\\n`` and ``\\t`` count; themselves where it is blank. Raises ``ValueError`` for no *color*."""
        if not text.strip():
            return io.NodeOutput(images)
        written = text.replace("\\n", "\n").replace("\\t", "\t")
        page = _Page(images.shape[2], images.shape[1], OPAQUE_BLACK if outline else INVISIBLE)
        layer = page.write(written, font_size / 100.0, pil_colour.getrgb(color), position, align)
        overlay = torch.from_numpy(numpy.asarray(layer, dtype=numpy.float32) / 255.0).to(images)
        colours, cover = overlay[..., :3], overlay[..., 3:]
        result = images.clone()
        result[..., :3] = images[..., :3] * (1.0 - cover) + colours * cover
        if images.shape[-1] == 4:
            result[..., 3:] = torch.maximum(images[..., 3:], cover.expand_as(images[..., 3:]))
        return io.NodeOutput(result)


@dataclass(frozen=True, slots=True)
class _Setting:
    """Text broken into lines for a font size."""

    block: str
    font: Any
    stroke: int
    spacing: int
    box: tuple[float, float, float, float]


class _Page:
    """A transparent layer of *width* by *height* pixels to write on."""

    def __init__(self, width: int, height: int, outline: tuple[int, int, int, int]) -> None:
        self._layer = pil_image.new("RGBA", (width, height), INVISIBLE)
        self._pen = pil_draw.Draw(self._layer)
        self._outline = outline
        self._margin = round(MARGIN * min(width, height))

    def write(self, text: str, share: float, colour: tuple[int, ...], position: str, align: str) -> Any:
        """The layer with *text*, as large as *share* of its height, or smaller where it does not fit."""
        width, height = self._layer.size
        setting = self._fitting(text, max(1, round(share * height)))
        x, anchor = {"left": (self._margin, "la"), "center": (width / 2, "ma"), "right": (width - self._margin, "ra")}[align]
        y = self._margin - setting.box[1] if position == "top" else height - self._margin - setting.box[3]
        self._pen.multiline_text(
            (x, y),
            setting.block,
            font=setting.font,
            fill=colour if len(colour) == 4 else (*colour, 255),
            anchor=anchor,
            align=align,
            spacing=setting.spacing,
            stroke_width=setting.stroke,
            stroke_fill=self._outline,
        )
        return self._layer

    def _fitting(self, text: str, size: int) -> _Setting:
        height = self._layer.height
        smallest = min(size, max(SMALLEST_PIXELS, round(SMALLEST_SHARE * height)))
        setting = self._set(text, size)
        while setting.box[3] - setting.box[1] > max(1, height - 2 * self._margin) and size > smallest:
            size = max(smallest, int(size * SHRINK))
            setting = self._set(text, size)
        return setting

    def _set(self, text: str, size: int) -> _Setting:
        font = pil_font.load_default(size=size)
        stroke = max(1, round(size * OUTLINE)) if self._outline[3] else 0
        one, two = (self._height_of(lines, font, 0, stroke) for lines in ("Ay", "Ay\nAy"))
        spacing = round(size * LINE_DISTANCE - (two - one))
        block = "\n".join(line for raw in text.split("\n") for line in _broken(raw, font, max(1, self._layer.width - 2 * self._margin)))
        box = self._pen.multiline_textbbox((0, 0), block, font=font, spacing=spacing, stroke_width=stroke)
        return _Setting(block, font, stroke, spacing, box)

    def _height_of(self, lines: str, font: Any, spacing: int, stroke: int) -> float:
        box = self._pen.multiline_textbbox((0, 0), lines, font=font, spacing=spacing, stroke_width=stroke)
        return box[3] - box[1]


def _broken(line: str, font: Any, width: float) -> list[str]:
    """*line* broken between words; words that are too long for a line are cut."""
    lines: list[str] = []
    current = ""
    for word in line.split():
        longer = f"{current} {word}" if current else word
        if font.getlength(longer) <= width:
            current = longer
            continue
        if current:
            lines.append(current)
        *whole, current = _pieces(word, font, width)
        lines.extend(whole)
    return [*lines, current] if current or not lines else lines


def _pieces(word: str, font: Any, width: float) -> list[str]:
    """*word* in pieces that fit into *width*, each as long as it can be, at least one letter."""
    pieces = [""]
    for letter in word:
        if pieces[-1] and font.getlength(pieces[-1] + letter) > width:
            pieces.append("")
        pieces[-1] += letter
    return pieces


class TextOverlayExtension(ComfyExtension):
    """The node of this module."""

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        """The node classes."""
        return [TextOverlay]


async def comfy_entrypoint() -> TextOverlayExtension:
    """What the server loads."""
    return TextOverlayExtension()
