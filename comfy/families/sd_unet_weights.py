"""Gives a Stable Diffusion UNet its weights from a file or state dict in the published layout."""

from collections.abc import MutableMapping
from typing import Any

import torch

from comfy.families.published_weights import load_published
from comfy.families.quantised_weights import plain_weights
from comfy.families.weight_source import PrefixedSource, StateDictSource, WeightSource


def load_unet_weights(
    unet: Any, source: WeightSource | MutableMapping[str, torch.Tensor], prefix: str, dtype: torch.dtype, device: torch.device | None
) -> None:
    """Make the tensors of *source* below *prefix* the parameters of *unet* (a ``UNetModel``), floating-point ones in *dtype*.

    A plain dict loses the tensors that were used. Raises ``ModelFileError``.
    """
    if isinstance(source, MutableMapping):
        source = StateDictSource(source, consume=True)
    load_published(unet, plain_weights(PrefixedSource(source, prefix)), dtype, "the diffusion model", device)
