"""Gives a Stable Diffusion UNet its weights from a file or state dict in the published layout."""

from collections.abc import MutableMapping
from typing import Any

import torch

from comfy.families.conversion_plan import assign
from comfy.families.published_weights import load_published
from comfy.families.weight_source import PrefixedSource, StateDictSource, WeightSource


def load_unet_weights(
    unet: Any, source: WeightSource | MutableMapping[str, torch.Tensor], prefix: str, dtype: torch.dtype, device: torch.device | None
) -> None:
    """Make the tensors of *source* below *prefix* the parameters of *unet* (an ``UNetModel``), floating ones in *dtype*.

    A plain dict loses the tensors that were used. Raises ``IncompleteModelError``.
    """
    if isinstance(source, MutableMapping):
        source = StateDictSource(source, consume=True)
    values = load_published(unet, PrefixedSource(source, prefix), dtype, "the diffusion model")
    if device is not None:
        assign(unet, {name: value.to(device) for name, value in values.items()})
