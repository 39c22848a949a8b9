"""Gives a Stable Diffusion UNet its weights from a file or state dict in the published layout."""

from collections.abc import Mapping, MutableMapping
from typing import Any

import torch
from diffusers.loaders.single_file_utils import LDM_UNET_KEY, convert_ldm_unet_checkpoint

from comfy.families.conversion_plan import ConversionPlan, load_parameters, plan_conversion
from comfy.families.model_errors import naming_file
from comfy.families.quantised_weights import plain_weights
from comfy.families.weight_names import WeightNames
from comfy.families.weight_source import PrefixedSource, StateDictSource, WeightSource


def plan_unet(shapes: Mapping[str, tuple[int, ...]], layers_per_block: int, has_vector_conditioning: bool) -> ConversionPlan:
    """Plan which published tensor (names without prefix) becomes which of diffusers' UNet parameters."""
    config = {"layers_per_block": layers_per_block, "addition_embed_type": "text_time" if has_vector_conditioning else None}

    def convert(tensors: dict[str, torch.Tensor]) -> Mapping[str, torch.Tensor]:
        return convert_ldm_unet_checkpoint({LDM_UNET_KEY + key: tensor for key, tensor in tensors.items()}, config)

    return plan_conversion(shapes, convert)


def load_unet_weights(
    unet: Any, source: WeightSource | MutableMapping[str, torch.Tensor], prefix: str, dtype: torch.dtype, device: torch.device | None
) -> WeightNames:
    """Make the tensors of *source* below *prefix* the parameters of *unet* (a ``UNetModel``), floating-point ones in *dtype*.

    A plain dict loses the tensors that were used. Returns the table of published names. Raises ``ModelFileError``.
    """
    if isinstance(source, MutableMapping):
        source = StateDictSource(source, consume=True)
    part = plain_weights(PrefixedSource(source, prefix))
    config, what = unet.config, "the diffusion model"
    with naming_file(source.name, what):
        plan = plan_unet(part.shapes(), config.num_res_blocks[0], config.adm_in_channels is not None)
    return load_parameters(unet, part, plan, dtype, what, device).weight_names()
