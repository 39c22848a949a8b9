"""Stable Diffusion's autoencoder: diffusers' encoder and decoder behind ComfyUI's two methods."""

import logging
import math
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own convention
from diffusers.loaders.single_file_utils import convert_ldm_vae_checkpoint
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL as DiffusersAutoencoder
from diffusers.models.resnet import ResnetBlock2D

import comfy.ops
from comfy.families.conversion_plan import ConversionPlan, load_parameters, plan_conversion
from comfy.families.kl_vae_config import KlVaeConfig, is_diffusers_vae
from comfy.families.model_errors import naming_file
from comfy.families.published_layout import vae_layout
from comfy.families.quantised_weights import plain_weights
from comfy.families.weight_names import WeightNames
from comfy.families.weight_source import WeightSource

log = logging.getLogger(__name__)

Shape = tuple[int, ...]
_LINEAR_IN_DIFFUSERS = ("to_q.weight", "to_k.weight", "to_v.weight", "to_out.0.weight")


class VaeResBlock(ResnetBlock2D):
    """diffusers' residual block without the passes over memory that an autoencoder can spare."""

    def forward(self, input_tensor: torch.Tensor, temb: torch.Tensor | None = None) -> torch.Tensor:
        """B x C in x height x width to B x C out x height x width; *temb* is not used."""
        h = self.conv1(F.silu(self.norm1(input_tensor), inplace=True))
        h = self.conv2(F.silu(self.norm2(h), inplace=True))
        return h.add_(input_tensor if self.conv_shortcut is None else self.conv_shortcut(input_tensor))


class KlAutoencoder(torch.nn.Module):
    """Turns pictures (B x channels x height x width, -1 to 1) into latents and back.

    ``weight_names`` maps the published names to the parameters, ``source_name`` says where they come from. A half that the file does
    not hold is None, and using it raises ``RuntimeError``.
    """

    def __init__(self, config: KlVaeConfig) -> None:
        super().__init__()
        self.config = config
        with torch.device("meta"):
            built = DiffusersAutoencoder(**config.diffusers_arguments()).eval().requires_grad_(False)
        self.encoder: Any = built.encoder if config.has_encoder else None
        self.quant_conv: Any = built.quant_conv if config.has_encoder else None
        self.decoder: Any = built.decoder if config.has_decoder else None
        self.post_quant_conv: Any = built.post_quant_conv if config.has_decoder else None
        self.source_name = "the file"
        self.weight_names: WeightNames | None = None
        for layer in self.modules():
            if type(layer) is ResnetBlock2D:
                layer.__class__ = VaeResBlock
        comfy.ops.adopt_layers(self)

    def encode(self, x: torch.Tensor) -> torch.Tensor:
        """The mean of the latent distribution."""
        if self.encoder is None:
            raise RuntimeError(self._missing("encoder", "pictures cannot be turned into latents"))
        moments = self.encoder(x)
        if self.quant_conv is not None:
            moments = self.quant_conv(moments)
        return moments.chunk(2, dim=1)[0]

    def decode(self, z: torch.Tensor) -> torch.Tensor:
        """The picture of a latent."""
        if self.decoder is None:
            raise RuntimeError(self._missing("decoder", "latents cannot be turned into pictures"))
        return self.decoder(z if self.post_quant_conv is None else self.post_quant_conv(z))

    def _missing(self, half: str, so: str) -> str:
        return f"the VAE of {self.source_name} holds no {half}, so {so} with it; load a VAE with both halves"


def plan_vae(shapes: Mapping[str, Shape], config: KlVaeConfig) -> ConversionPlan:
    """Plan which published tensor (no prefix) becomes which of diffusers' parameters."""
    arguments = config.diffusers_arguments()
    return plan_conversion(shapes, lambda tensors: convert_ldm_vae_checkpoint(tensors, arguments))


def load_vae_weights(model: KlAutoencoder, source: WeightSource, dtype: torch.dtype) -> None:
    """Give *model* its weights from *source* (no prefix; published or diffusers' names) in *dtype*; sets ``weight_names``.

    Raises ``ModelFileError``.
    """
    part, what = plain_weights(source), "the VAE"
    shapes = part.shapes()
    named = {key: shape for key, shape in shapes.items() if key.startswith(("encoder.", "decoder.", "quant_conv.", "post_quant_conv."))}
    with naming_file(source.name, what):
        is_diffusers = is_diffusers_vae(shapes)
        plan = plan_conversion(named, _modern_attention_names) if is_diffusers else plan_vae(named, model.config)
    loaded = load_parameters(model, part, plan, dtype, what)
    names = (plan_vae(_published_layout(model.config), model.config) if is_diffusers else loaded).weight_names()
    model.weight_names, model.source_name = names, source.name
    if not (model.config.has_encoder and model.config.has_decoder):
        log.warning("%s holds only the %s of a VAE", source.name, "decoder" if model.config.has_decoder else "encoder")


def _published_layout(config: KlVaeConfig) -> dict[str, Shape]:
    """The published names and shapes of the halves that there are."""
    absent = (() if config.has_encoder else ("encoder.", "quant_conv.")) + (() if config.has_decoder else ("decoder.", "post_quant_conv."))
    return {key: shape for key, shape in vae_layout(config).items() if not key.startswith(absent)}


def _modern_attention_names(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """*tensors* under diffusers' present names and shapes, for files that have its earlier ones."""
    earlier = {".query.": ".to_q.", ".key.": ".to_k.", ".value.": ".to_v.", ".proj_attn.": ".to_out.0."}
    renamed = {}
    for key, tensor in tensors.items():
        for old, new in earlier.items():
            key = key.replace(old, new) if ".attentions." in key else key
        if key.endswith(_LINEAR_IN_DIFFUSERS) and tensor.ndim == 4:
            tensor = tensor[:, :, 0, 0]
        renamed[key] = tensor
    return renamed


def published_state_dict(model: Any) -> dict[str, torch.Tensor]:
    """The weights of *model* under their published names; views where one parameter holds the whole tensor."""
    parameters = dict(model.named_parameters())
    return {key: model.weight_names.join(key, parameters.__getitem__, torch.cat) for key in model.weight_names}


def decode_memory_bytes(shape: Shape, dtype_bytes: int, ratio: int) -> float:
    """Bytes of working memory to decode latents of *shape*, B x C x height x width; *ratio* is pixels per latent pixel along a side.

    Measured with SD's autoencoder; proportional to the picture's area.
    """
    return 2178 * math.prod(shape[2:4]) * ratio**2 * dtype_bytes


def encode_memory_bytes(shape: Shape, dtype_bytes: int) -> float:
    """Bytes of working memory to encode pictures of *shape*, B x channels x height x width."""
    return 1767 * math.prod(shape[2:4]) * dtype_bytes
