"""The formats of quantised layers, by the names that files give them, and what a file says about one layer.

Sources: ComfyUI's description of its files; OCP Microscaling Formats 1.0 for mxfp8; NVIDIA's for nvfp4.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True, slots=True)
class Format:
    """How weights of one format are stored.

    ``stored`` is the dtype of the numbers and ``per_byte`` how many share a byte; ``scales`` are the companions a weight must have, by
    suffix; rows and columns are padded to multiples of ``padding``. ``layout`` is comfy-kitchen's name for it. ``quantises_input``: a
    product in few bits takes its input quantised in the same way; otherwise the layout does that itself. ``grouped``: numbers are codes
    that scales of groups of inputs make int8 ones of, and are rotated.
    """

    name: str
    stored: torch.dtype
    layout: str
    scales: tuple[str, ...] = ("weight_scale",)
    per_byte: int = 1
    padding: int = 1
    quantises_input: bool = True
    grouped: bool = False

    def logical_shape(self, stored: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of the weight whose numbers have the shape *stored*, padding included."""
        return (*stored[:-1], stored[-1] * self.per_byte) if stored else stored


FORMATS: Mapping[str, Format] = {
    one.name: one
    for one in (
        Format("float8_e4m3fn", torch.float8_e4m3fn, "TensorCoreFP8E4M3Layout"),
        Format("float8_e5m2", torch.float8_e5m2, "TensorCoreFP8E5M2Layout"),
        Format("mxfp8", torch.float8_e4m3fn, "TensorCoreMXFP8Layout", padding=32),
        Format("nvfp4", torch.uint8, "TensorCoreNVFP4Layout", ("weight_scale", "weight_scale_2"), per_byte=2, padding=16),
        Format("int8_tensorwise", torch.int8, "TensorWiseINT8Layout", quantises_input=False),
        Format(
            "asym_w4a8_int8", torch.int8, "AsymW4A8Int8Layout", ("weight_s_rel", "weight_s_channel"), quantises_input=False, grouped=True
        ),
    )
}
FLOAT8 = {one.stored: one for one in FORMATS.values() if one.name.startswith("float8_")}
ROTATION_GROUP = 256
SCALE_GROUP = 16
# What the settings of a layer may hold; another name means something that is not known here.
KNOWN_SETTINGS = ("format", "full_precision_matrix_mult", "convrot", "convrot_groupsize", "params")
GROUPED_SETTINGS = (*KNOWN_SETTINGS, "group_size")


@dataclass(frozen=True, slots=True)
class LayerFormat:
    """What a file says about one layer.

    ``rotation`` is the size of the groups of inputs in which an int8 weight was rotated before it was quantised, 0 if it was not, and
    ``group`` that of the groups with a scale of their own. ``full_precision``: products must not be made in few bits.
    """

    format: Format
    full_precision: bool = False
    rotation: int = 0
    group: int = 0


class UnknownFormat(ValueError):
    """A layer's settings name something that is not known here; the text says what."""


def read_settings(settings: Any) -> LayerFormat:
    """The format that the *settings* of a layer (JSON, as files hold it) describe. Raises :class:`UnknownFormat`."""
    if not isinstance(settings, Mapping):
        raise UnknownFormat(f"settings that are a {type(settings).__name__}")
    name = settings.get("format", "float8_e4m3fn")
    if name not in FORMATS:
        raise UnknownFormat(f"{name}")
    found = FORMATS[name]
    unknown = [key for key in settings if key not in (GROUPED_SETTINGS if found.grouped else KNOWN_SETTINGS)]
    if unknown:
        raise UnknownFormat(f"{name} with the setting {unknown[0]!r}")
    inner = settings.get("params")
    both = {**(inner if isinstance(inner, Mapping) else {}), **settings}
    is_rotated = bool(both.get("convrot", found.grouped))
    if is_rotated != found.grouped and name != "int8_tensorwise":
        raise UnknownFormat(f"{name} {'with' if is_rotated else 'without'} convrot")
    rotation = int(both.get("convrot_groupsize", ROTATION_GROUP)) if is_rotated else 0
    group = int(both.get("group_size", SCALE_GROUP)) if found.grouped else 0
    return LayerFormat(found, bool(settings.get("full_precision_matrix_mult", False)), rotation, group)


def settings_of(layer: LayerFormat) -> dict[str, Any]:
    """What a file says about *layer*; the inverse of :func:`read_settings`."""
    settings: dict[str, Any] = {"format": layer.format.name}
    if layer.full_precision:
        settings["full_precision_matrix_mult"] = True
    if layer.rotation:
        settings |= {"convrot": True, "convrot_groupsize": layer.rotation}
    if layer.group:
        settings["group_size"] = layer.group
    return settings
