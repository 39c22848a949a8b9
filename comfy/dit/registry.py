"""The families of diffusion transformers that are known, in the order in which files are compared with them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from comfy.dit import (
    ace,
    ace15,
    chroma,
    cosmos,
    ernie,
    flux,
    flux2,
    flux3,
    hidream,
    hunyuan_video,
    ideogram4,
    kandinsky5,
    krea2,
    ltx,
    lumina,
    mage_flow,
    minimax,
    omnigen,
    pixeldit,
    qwen_image,
    qwen_image21,
    rt_detr,
    sam3,
    sd3,
    stable_audio,
    wan,
)
from comfy.dit.family import Config, Family, Shapes, network_kind
from comfy.dit.restoring import seedvr
from comfy.supported_models_base import BASE

FAMILIES: tuple[Family, ...] = (
    flux.FAMILY,
    flux2.FAMILY,
    flux3.FAMILY,
    chroma.FAMILY,
    qwen_image.FAMILY,
    qwen_image21.FAMILY,
    mage_flow.FAMILY,
    omnigen.FAMILY,
    ernie.FAMILY,
    pixeldit.FAMILY,
    lumina.FAMILY,
    krea2.FAMILY,
    ideogram4.FAMILY,
    sd3.FAMILY,
    cosmos.FIRST,
    cosmos.FAMILY,
    hidream.FAMILY,
    wan.FAMILY,
    hunyuan_video.FAMILY,
    hunyuan_video.FIRST,
    kandinsky5.FAMILY,
    minimax.FAMILY,
    ace.FAMILY,
    ace15.FAMILY,
    ltx.FAMILY,
    stable_audio.FAMILY,
    seedvr.FAMILY,
    sam3.FAMILY,
    rt_detr.FAMILY,
)


def configurations() -> list[type[BASE]]:
    """The configurations of all families, the most specific first."""
    return [config for family in FAMILIES for config in family.configs]


def family_of(unet_config: Mapping[str, Any] | None) -> Family | None:
    """The family of a model with *unet_config*, or None."""
    name = network_kind(unet_config or {})
    return next((family for family in FAMILIES if name in family.image_models()), None)


def read_transformer_config(shapes: Shapes, prefix: str = "", metadata: Mapping[str, str] | None = None) -> Config | None:
    """ComfyUI's ``unet_config`` for the tensors of *shapes* below *prefix*, in published names; None for an unknown network.

    *metadata* of the file counts for families whose files say something there. Raises ``ModelFileError`` and what damaged shapes lead to
    (see :func:`comfy.families.model_errors.naming_file`).
    """
    own = {key[len(prefix) :]: shape for key, shape in shapes.items() if key.startswith(prefix)}
    for family in FAMILIES:
        config = family.read_config(own)
        if config is not None:
            return config if family.with_metadata is None or not metadata else family.with_metadata(config, metadata)
    return None
