"""Documents of picture layers (the type LAYERS) and what the page's layer editor saves of them (COMPOSITOR)."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import astuple, dataclass, replace
from typing import TYPE_CHECKING, Any

from comfy.lazy_import import lazy_module
from comfy_extras.layer_blending import MODES
from comfy_extras.node_inputs import MAX_RESOLUTION

if TYPE_CHECKING:
    from torch import Tensor

numpy = lazy_module("numpy")
torch = lazy_module("torch")

MOST_LAYERS = 50
VERSION = 1
Document = Mapping[str, Any]
Size = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a layer lies on the canvas, in pixels (*rotation* in radians, clockwise), and how it looks."""

    x: float = 0.0
    y: float = 0.0
    width: float = 0.0
    height: float = 0.0
    rotation: float = 0.0
    opacity: float = 1.0
    blend: str = "normal"
    visible: bool = True
    flip_h: bool = False
    flip_v: bool = False

    def bounds(self) -> tuple[int, int, int, int]:
        """x, y, width and height of the smallest upright rectangle around it, in whole pixels, at least one."""
        half_width, half_height = self.width / 2, self.height / 2
        sine, cosine = math.sin(self.rotation), math.cos(self.rotation)
        corners = [(dx * half_width, dy * half_height) for dx in (-1, 1) for dy in (-1, 1)]
        across = [self.x + half_width + dx * cosine - dy * sine for dx, dy in corners]
        down = [self.y + half_height + dx * sine + dy * cosine for dx, dy in corners]
        left, top = math.floor(min(across)), math.floor(min(down))
        return left, top, max(1, math.ceil(max(across)) - left), max(1, math.ceil(max(down)) - top)


@dataclass(frozen=True, slots=True)
class Layer:
    """One picture (1×H×W×3 or ×4), its opacity *alpha* (1×H×W, None: opaque), its name and where its document puts it."""

    picture: Tensor
    alpha: Tensor | None
    name: str | None
    placement: Placement

    def fingerprint(self) -> str:
        """Equal for equal pictures that lie equally, as ComfyUI makes it: what the editor saves to notice that its layers have changed."""
        digest = hashlib.sha256(repr(tuple(self.picture.shape)).encode())
        digest.update(in_8_bits(self.picture[0, ..., :3]).tobytes())
        if self.alpha is not None:
            digest.update(in_8_bits(self.alpha[0]).tobytes())
        digest.update(repr(astuple(self.placement)).encode())
        return digest.hexdigest()[:16]

    def shown(self) -> dict[str, Any]:
        """What the editor is told."""
        place = self.placement
        sides = {"x": place.x, "y": place.y, "width": int(place.width), "height": int(place.height), "rotation": place.rotation}
        look = {"visible": place.visible, "opacity": place.opacity, "blend": place.blend, "flipH": place.flip_h, "flipV": place.flip_v}
        return sides | {"name": self.name} | look


@dataclass(frozen=True, slots=True)
class Arrangement:
    """A canvas and the placement of each layer, in the order of the layers; *order* is that in which they are drawn.

    *background* is a colour and its opacity, None for nothing. *inputs* are the fingerprints of the layers that it was made for.
    """

    canvas: Size
    placements: tuple[Placement, ...]
    order: tuple[int, ...]
    background: tuple[str, float] | None = None
    inputs: tuple[str, ...] = ()


def in_8_bits(values: Tensor) -> Any:
    """*values* (0…1) as bytes, rounded."""
    return numpy.clip(numpy.rint(values.detach().cpu().float().numpy() * 255.0), 0, 255).astype(numpy.uint8)


def read_document(document: Any) -> list[Layer]:
    """The layers of *document* from the lowest to the highest; each frame of a batch is one.

    Raises ``ValueError`` for documents of another version, layers of another kind, unknown blend modes and too many layers.
    """
    layers = [layer for item in sorted(_items(document), key=lambda item: whole(item.get("z_index"))) for layer in _layers_of(item)]
    if len(layers) > MOST_LAYERS:
        raise ValueError(f"{len(layers)} layers; at most {MOST_LAYERS} can be composed. Join some of them first")
    return layers


def canvas_of(document: Any) -> Size | None:
    """The size that *document* asks for, None when it asks for none."""
    given = document.get("canvas") if isinstance(document, Mapping) else None
    sides = tuple(map(whole, given)) if isinstance(given, list | tuple) and len(given) == 2 else ()
    return (sides[0], sides[1]) if sides and min(sides) > 0 else None


def initial_arrangement(layers: list[Layer], canvas: Size | None) -> Arrangement:
    """The layers as their document puts them, on *canvas* or on what holds them all."""
    if canvas is None:
        ends = [(left + width, top + height) for left, top, width, height in (layer.placement.bounds() for layer in layers)]
        canvas = (max(1, *(end[0] for end in ends)), max(1, *(end[1] for end in ends)))
    return Arrangement(canvas, tuple(layer.placement for layer in layers), tuple(range(len(layers))))


def read_arrangement(saved: Any, layers: list[Layer]) -> Arrangement | None:
    """What the editor saved, None when it is nothing, cannot be understood, or was not made for *layers*.

    It comes with the workflow, so every number is brought into its range.
    """
    if isinstance(saved, str):
        try:
            saved = json.loads(saved)
        except ValueError:
            return None
    if not isinstance(saved, Mapping) or saved.get("version") not in (None, VERSION):
        return None
    entries, canvas = saved.get("layers"), saved.get("canvas")
    if not layers or not isinstance(entries, list) or not isinstance(canvas, Mapping) or len(entries) != len(layers):
        return None
    size = tuple(round(_number(canvas.get(side), 0.0)) for side in ("w", "h"))
    if min(size) <= 0 or saved.get("inputs") != [layer.fingerprint() for layer in layers]:
        return None
    placements = tuple(_placement(entry, layer.picture) for entry, layer in zip(entries, layers))
    order: Any = saved.get("order")
    is_order = isinstance(order, list) and all(type(one) is int for one in order) and sorted(order) == list(range(len(layers)))
    drawn = tuple(order) if is_order else tuple(range(len(layers)))
    return Arrangement((size[0], size[1]), placements, drawn, _background(saved.get("background")), tuple(saved["inputs"]))


def frame_of(mask: Any, number: int) -> Tensor | None:
    """The mask of frame *number*: a single one is everybody's."""
    if not isinstance(mask, torch.Tensor) or (len(mask) > 1 and number >= len(mask)):
        return None
    return mask[:1] if len(mask) == 1 else mask[number : number + 1]


def whole(value: Any, otherwise: int = 0) -> int:
    """*value* as an integer, *otherwise* when it is no number."""
    return int(value) if isinstance(value, int | float) and not isinstance(value, bool) else otherwise


def _items(document: Any) -> Iterator[Document]:
    given = document if isinstance(document, Mapping) else {}
    if given.get("version") not in (None, VERSION):
        raise ValueError(f"LAYERS document version {given['version']!r} is not supported")
    for item in given.get("layers") or []:
        if not isinstance(item, Mapping) or not isinstance(item.get("image"), torch.Tensor):
            raise ValueError("a layer of the LAYERS document has no image")
        if item.get("type", "raster") != "raster":
            raise ValueError(f"LAYERS item type {item['type']!r} is not supported")
        if item.get("blend_mode", "normal") not in MODES:
            raise ValueError(f"LAYERS item blend_mode {item['blend_mode']!r} is not known; known are {', '.join(MODES)}")
        yield item


def _layers_of(item: Document) -> Iterator[Layer]:
    image, name = item["image"], item.get("name")
    placement = Placement(
        whole(item.get("x")),
        whole(item.get("y")),
        whole(item.get("w")) or image.shape[2],
        whole(item.get("h")) or image.shape[1],
        _number(item.get("rotation"), 0.0),
        min(max(_number(item.get("opacity"), 1.0), 0.0), 1.0),
        item.get("blend_mode", "normal"),
        *(bool(item.get(key, default)) for key, default in (("visible", True), ("flip_h", False), ("flip_v", False))),
    )
    for number in range(len(image)):
        picture = image[number : number + 1]
        yield Layer(picture, _alpha(picture, frame_of(item.get("mask"), number)), name if isinstance(name, str) else None, placement)


def _alpha(picture: Tensor, mask: Tensor | None) -> Tensor | None:
    """The opacity of a picture: its fourth channel, less what *mask* (1: transparent) takes away."""
    alpha = picture[..., 3] if picture.shape[-1] == 4 else None
    if mask is None:
        return alpha
    fitting = mask.to(picture.device, torch.float32)
    if fitting.shape[1:] != picture.shape[1:3]:
        fitting = torch.nn.functional.interpolate(fitting.unsqueeze(1), size=picture.shape[1:3], mode="bilinear").squeeze(1)
    seen = (1.0 - fitting).clamp(0.0, 1.0)
    return seen if alpha is None else alpha * seen


def _number(value: Any, otherwise: float) -> float:
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if is_number else otherwise


def _placement(entry: Any, picture: Tensor) -> Placement:
    """What the editor saved of one layer."""
    entry = entry if isinstance(entry, Mapping) else {}
    given = entry.get("transform")
    transform = given if isinstance(given, Mapping) else {}
    own_height, own_width = picture.shape[1:3]
    x, y = (min(max(_number(transform.get(axis), 0.0), -MAX_RESOLUTION), MAX_RESOLUTION) for axis in ("x", "y"))
    sides = [_number(transform.get(side), own) for side, own in (("w", own_width), ("h", own_height))]
    width, height = (min(side, float(MAX_RESOLUTION)) if side > 0 else float(own) for side, own in zip(sides, (own_width, own_height)))
    blend = entry.get("blend")
    made = Placement(x, y, width, height, _number(transform.get("rotation"), 0.0))
    return replace(
        made,
        opacity=min(max(_number(entry.get("opacity"), 1.0), 0.0), 1.0),
        blend=blend if isinstance(blend, str) else "normal",
        visible=bool(entry.get("visible", True)),
        flip_h=bool(entry.get("flipH", False)),
        flip_v=bool(entry.get("flipV", False)),
    )


def _background(entry: Any) -> tuple[str, float] | None:
    if not isinstance(entry, Mapping) or not entry.get("visible", True):
        return None
    given = entry.get("color")
    digits = given.strip().lstrip("#") if isinstance(given, str) else ""
    digits = "".join(2 * digit for digit in digits) if len(digits) == 3 else digits
    return digits, min(max(_number(entry.get("opacity"), 1.0), 0.0), 1.0)
