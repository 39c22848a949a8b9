"""Writes the three networks as one checkpoint in the published Stable Diffusion 1.x layout, and reads such a file back."""

import os
import pathlib
from collections.abc import Mapping
from dataclasses import dataclass

import safetensors
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from safetensors.torch import save
from transformers import CLIPTextModel

from comfy.families.clip_text import plan_clip_text
from comfy.families.conversion_plan import ConversionPlan, plan_conversion
from comfy.families.diffusers_names import unet_names, vae_names
from starter.autoencoder import build_autoencoder
from starter.sizes import TEXT, TEXT_PREFIX, UNET, UNET_PREFIX, VAE, VAE_PREFIX, checkpoint_shapes, header_metadata
from starter.text_encoder import build_text_encoder
from starter.unet import build_unet


@dataclass(frozen=True, slots=True)
class StarterNetworks:
    """The networks of one checkpoint, in float32."""

    unet: UNet2DConditionModel
    text: CLIPTextModel
    vae: AutoencoderKL

    def parts(self) -> dict[str, tuple[torch.nn.Module, ConversionPlan]]:
        """Per prefix the network and the plan that names its tensors."""
        shapes = checkpoint_shapes()

        def below(prefix: str) -> dict[str, tuple[int, ...]]:
            return {key[len(prefix) :]: shape for key, shape in shapes.items() if key.startswith(prefix)}

        return {
            UNET_PREFIX: (self.unet, _renaming(below(UNET_PREFIX), unet_names(UNET))),
            TEXT_PREFIX: (self.text, plan_clip_text(below(TEXT_PREFIX), TEXT.hidden_size)),
            VAE_PREFIX: (self.vae, _renaming(below(VAE_PREFIX), vae_names(VAE))),
        }


def _renaming(shapes: Mapping[str, tuple[int, ...]], names: Mapping[str, str]) -> ConversionPlan:
    return plan_conversion(shapes, lambda tensors: {names[key]: tensor for key, tensor in tensors.items()})


def build_networks() -> StarterNetworks:
    """New networks with weights from torch's current seed."""
    return StarterNetworks(build_unet(), build_text_encoder(), build_autoencoder())


def published_tensors(networks: StarterNetworks, dtype: torch.dtype = torch.float16) -> dict[str, torch.Tensor]:
    """Every tensor of the checkpoint under its published name, contiguous and in *dtype*."""
    shapes, tensors = checkpoint_shapes(), {}
    for prefix, (network, plan) in networks.parts().items():
        parameters = _named(network)
        for name, view in plan.views.items():
            key = prefix + view.key
            tensors[key] = parameters[name].detach().to(dtype).contiguous().view(shapes[key])
    return {key: tensors[key] for key in shapes}


def _named(network: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Parameters by the names that plans use; the text model's always begin with ``text_model.``."""
    named: dict[str, torch.Tensor] = dict(network.named_parameters())
    if isinstance(network, CLIPTextModel):
        return {name if name.startswith("text_model.") else f"text_model.{name}": value for name, value in named.items()}
    return named


def write_checkpoint(path: pathlib.Path, networks: StarterNetworks) -> int:
    """Write *networks* to *path* in half precision; returns the size in bytes. The file appears only when it is complete."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    partial.write_bytes(save(published_tensors(networks), metadata={"format": "pt", **header_metadata()}))
    os.replace(partial, path)
    return path.stat().st_size


@torch.no_grad()
def read_checkpoint(path: pathlib.Path) -> StarterNetworks:
    """The networks in a file that :func:`write_checkpoint` wrote. Raises ``ValueError`` for a file with other tensors."""
    with safetensors.safe_open(str(path), framework="pt") as file:
        tensors: Mapping[str, torch.Tensor] = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - no mapping
    found = {key: tuple(tensor.shape) for key, tensor in tensors.items()}
    if found != checkpoint_shapes():
        raise ValueError(f"{path} is not a starter checkpoint: its tensors have other names or sizes than they should; train it again")
    networks = build_networks()
    for prefix, (network, plan) in networks.parts().items():
        parameters = _named(network)
        for name, view in plan.views.items():
            parameters[name].copy_(tensors[prefix + view.key].view(parameters[name].shape))
    return networks
