"""Blending layers of pictures, by the modes that the page's layer editor offers.

Pictures are H×W×4 numpy arrays, float32: linear light and opacity. A mode mixes colours in linear light or as they are encoded (sRGB), and
says how the opacities meet. The formulas are those of the W3C's "Compositing and Blending" and of GIMP's layer modes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from comfy.lazy_import import lazy_module

numpy = lazy_module("numpy")

Array = Any
Blend = Callable[[Array, Array], Array]

TINY = 1e-6
LUMINANCE = (0.2224884, 0.71690369, 0.06060791)  # of linear red, green and blue, as GIMP weighs them


def to_linear(encoded: Array) -> Array:
    """Light from sRGB values (IEC 61966-2-1)."""
    return numpy.where(encoded <= 0.04045, encoded / 12.92, ((numpy.maximum(encoded, 0.0) + 0.055) / 1.055) ** 2.4).astype(numpy.float32)


def to_encoded(light: Array) -> Array:
    """sRGB values of light."""
    return numpy.where(light <= 0.0031308, light * 12.92, 1.055 * numpy.maximum(light, 0.0) ** (1 / 2.4) - 0.055).astype(numpy.float32)


def _over(part: Array, whole: Array, otherwise: Array | float = 0.0) -> Array:
    """*part* / *whole*, *otherwise* where *whole* is nearly 0."""
    is_tiny = numpy.abs(whole) < TINY
    return numpy.where(is_tiny, otherwise, part / numpy.where(is_tiny, 1.0, whole))


def _dodge(below: Array, above: Array) -> Array:
    lit = numpy.where(1 - above <= TINY, 1.0, numpy.minimum(_over(below, 1 - above), 1.0))
    return numpy.where(below <= 0, 0.0, lit)


def _burn(below: Array, above: Array) -> Array:
    dark = numpy.where(above <= TINY, 0.0, 1 - numpy.minimum(_over(1 - below, above), 1.0))
    return numpy.where(below >= 1, 1.0, dark)


def _hard_light(below: Array, above: Array) -> Array:
    return numpy.minimum(numpy.where(above > 0.5, 1 - (1 - below) * (2 - 2 * above), 2 * below * above), 1.0)


def _hue(below: Array, above: Array) -> Array:
    """The hue of *above* with the saturation and value of *below*."""
    value, spread = _value_and_spread(below)
    own_value, own_spread = _value_and_spread(above)
    ratio = _over(spread, own_spread)
    return numpy.where(own_spread <= TINY, below, above * ratio + value - own_value * ratio)


def _saturation(below: Array, above: Array) -> Array:
    """The saturation of *above* with the hue and value of *below*."""
    value, spread = _value_and_spread(below)
    own_value, own_spread = _value_and_spread(above)
    ratio = _over(_over(own_spread, own_value) * value, spread)
    return numpy.where(spread <= TINY, value, below * ratio + (1 - ratio) * value)


def _colour(below: Array, above: Array) -> Array:
    """Hue and saturation of *above* with the lightness of *below*."""
    lightness, own = ((one.min(axis=-1, keepdims=True) + one.max(axis=-1, keepdims=True)) / 2 for one in (below, above))
    is_grey = (numpy.abs(own) <= TINY) | (numpy.abs(1 - own) <= TINY)
    room = numpy.minimum(lightness, 1 - lightness)
    ratio = room / numpy.where(is_grey, 1.0, numpy.minimum(own, 1 - own))
    offset = numpy.where(lightness > 0.5, 1 - 2 * room, 0.0) + numpy.where(own > 0.5, 2 * room - ratio, 0.0)
    return numpy.where(is_grey, lightness, above * ratio + offset)


def _luminosity(below: Array, above: Array) -> Array:
    """The luminance of *above* with the hue and saturation of *below*; grey where *below* is black."""
    bright, own = ((one @ numpy.array(LUMINANCE, dtype=numpy.float32))[..., None] for one in (below, above))
    return numpy.where(bright <= TINY, own, below * _over(own, bright))


def _value_and_spread(colours: Array) -> tuple[Array, Array]:
    highest = colours.max(axis=-1, keepdims=True)
    return highest, highest - colours.min(axis=-1, keepdims=True)


@dataclass(frozen=True, slots=True)
class Mode:
    """How a layer meets what is below it. ``is_encoded``: colours are mixed as sRGB. ``is_over``: the layer also covers where nothing
    is below; otherwise it is only seen on what is there."""

    blend: Blend
    is_encoded: bool = True
    is_over: bool = False


MODES: Mapping[str, Mode] = {
    "normal": Mode(lambda below, above: above, is_encoded=False, is_over=True),
    "multiply": Mode(lambda below, above: below * above, is_encoded=False),
    "screen": Mode(lambda below, above: 1 - (1 - below) * (1 - above)),
    "overlay": Mode(lambda below, above: numpy.where(below < 0.5, 2 * below * above, 1 - 2 * (1 - above) * (1 - below))),
    "darken": Mode(lambda below, above: numpy.minimum(below, above), is_encoded=False),
    "lighten": Mode(lambda below, above: numpy.maximum(below, above), is_encoded=False),
    "color-dodge": Mode(_dodge),
    "color-burn": Mode(_burn),
    "hard-light": Mode(_hard_light),
    "soft-light": Mode(lambda below, above: (1 - below) * below * above + below * (1 - (1 - below) * (1 - above))),
    "difference": Mode(lambda below, above: numpy.abs(below - above)),
    "exclusion": Mode(lambda below, above: 0.5 - 2 * (below - 0.5) * (above - 0.5)),
    "linear-dodge": Mode(lambda below, above: below + above, is_encoded=False),
    "linear-burn": Mode(lambda below, above: below + above - 1),
    "vivid-light": Mode(lambda below, above: numpy.where(above <= 0.5, _burn(below, 2 * above), _dodge(below, 2 * above - 1))),
    "pin-light": Mode(lambda below, above: numpy.where(above > 0.5, numpy.maximum(below, 2 * above - 1), numpy.minimum(below, 2 * above))),
    "linear-light": Mode(lambda below, above: below + 2 * above - 1),
    "hard-mix": Mode(lambda below, above: numpy.where(below + above < 1, 0.0, 1.0)),
    "subtract": Mode(lambda below, above: numpy.maximum(below - above, 0.0), is_encoded=False),
    "divide": Mode(lambda below, above: numpy.clip(below / numpy.maximum(above, TINY), 0.0, 1.0), is_encoded=False),
    "grain-extract": Mode(lambda below, above: below - above + 0.5),
    "grain-merge": Mode(lambda below, above: below + above - 0.5),
    "hue": Mode(_hue),
    "saturation": Mode(_saturation),
    "color": Mode(_colour),
    "luminosity": Mode(_luminosity, is_encoded=False),
}


def blend_layers(below: Array, above: Array, name: str, opacity: float) -> Array:
    """*below* with *above* on it, by the mode *name* ("normal" for unknown ones), *above* as opaque as *opacity* (0…1) says."""
    mode = MODES.get(name, MODES["normal"])
    colours = [to_encoded(one[..., :3]) if mode.is_encoded else one[..., :3] for one in (below, above)]
    mixed = mode.blend(*colours)
    mixed = to_linear(mixed) if mode.is_encoded else mixed
    cover, there = above[..., 3:] * opacity, below[..., 3:]
    if not mode.is_over:
        seen = numpy.where((there == 0) | (cover == 0), below[..., :3], mixed * cover + below[..., :3] * (1 - cover))
        return numpy.concatenate([seen, there], axis=-1).astype(numpy.float32)
    full = cover + (1 - cover) * there
    share = _over(cover, full)
    own = there * mixed + (1 - there) * above[..., :3]
    seen = numpy.where(cover == 0, below[..., :3], numpy.where(there == 0, above[..., :3], share * own + (1 - share) * below[..., :3]))
    return numpy.concatenate([seen, full], axis=-1).astype(numpy.float32)
