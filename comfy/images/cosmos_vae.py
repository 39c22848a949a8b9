"""Cosmos 1's autoencoder (CV8x8x8): diffusers' network over the published weights, for videos."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl_cosmos import (
    LATENTS_MEAN,
    LATENTS_STD,
    AutoencoderKLCosmos,
    CosmosCausalAttention,
    CosmosSpatialAttentionProcessor2_0,
)

import comfy.ops
from comfy.families.conversion_plan import ConversionPlan, load_parameters, plan_conversion
from comfy.families.model_errors import UnknownModelError, naming_file
from comfy.families.quantised_weights import plain_weights
from comfy.families.weight_names import WeightNames
from comfy.families.weight_source import WeightSource
from comfy.ldm.modules.diffusionmodules.model import vae_attention

Shape = tuple[int, ...]

WHAT = "the VAE"
SIDE, FRAMES_PER_LATENT = 8, 8
LATENT_CHANNELS = 16
SIGMA_DATA = 0.5  # the deviation of latents as the network of Cosmos takes them
BYTES_PER_PIXEL = 50  # of working memory, for each byte of a number; measured by ComfyUI
HALVINGS = 2  # of frames and sides, by Haar's transform
LEVELS = 3
PUBLISHED_MARK, DIFFUSERS_MARK = "decoder.unpatcher3d.wavelets", "decoder.conv_in.conv_s.weight"
STATISTICS = ("latent_mean", "latent_std")
# The published names of parts, and diffusers'; the decoder counts its levels the other way round there.
LEVEL = re.compile(r"(encoder|decoder)\.(?:down|up)\.(\d+)\.(block\.\d+|downsample|upsample)\.(.+)")
IN_LEVEL = {"downsample": "downsamplers.0", "upsample": "upsamplers.0"}
MIDDLE = re.compile(r"(encoder|decoder)\.mid\.(block_1|attn_1\.0|attn_1\.1|block_2)\.(.+)")
IN_MIDDLE = {"block_1": "resnets.0", "attn_1.0": "attentions.0", "attn_1.1": "temp_attentions.0", "block_2": "resnets.1"}
IN_ATTENTION = {"q": "to_q", "k": "to_k", "v": "to_v", "proj_out": "to_out.0"}
# Convolutions of pictures and of frames are one after the other.
TWO_STEPS = re.compile(r"(^|\.)(conv_in|conv_out|conv1|conv2)\.([01])\.")


@dataclass(frozen=True, slots=True)
class CosmosVaeConfig:
    """Sizes of one such autoencoder: channels of each half, from full resolution down, and of its latents.

    ``has_statistics``: whether its file says what latents are scaled by; diffusers' files do not.
    """

    encoder_widths: tuple[int, ...]
    decoder_widths: tuple[int, ...]
    latent_channels: int
    has_statistics: bool


def read_cosmos_vae_config(shapes: Mapping[str, Shape]) -> CosmosVaeConfig:
    """The sizes that *shapes* (published or diffusers' names, no prefix) show.

    Raises ``KeyError`` for missing tensors, ``UnknownModelError`` for others of the kind.
    """
    own = {diffusers_name(name): shape for name, shape in shapes.items()}
    levels = range(LEVELS)
    encoder = (
        own["encoder.conv_in.conv_s.weight"][0],
        *(own[f"encoder.down_blocks.{level}.resnets.0.conv1.conv_s.weight"][0] for level in levels),
    )
    decoder = (
        *(own[f"decoder.up_blocks.{level}.resnets.0.conv1.conv_s.weight"][0] for level in reversed(levels)),
        own["decoder.conv_in.conv_s.weight"][0],
    )
    latent = own["decoder.conv_in.conv_s.weight"][1]
    if latent != LATENT_CHANNELS or f"encoder.down_blocks.{LEVELS}.resnets.0.norm1.norm.weight" in own:
        raise UnknownModelError(
            f"its latents have {latent} channels; supported: {LATENT_CHANNELS}, and {LEVELS} levels (CV8x8x8); use Cosmos 1's autoencoder"
        )
    return CosmosVaeConfig(encoder, decoder, latent, all(name in shapes for name in STATISTICS))


class HaarTransform(torch.nn.Module):
    """Frames and sides halved twice by Haar's transform: sums and differences of neighbours, 64 channels for one."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """B x channels x frames x height x width; the first frame stands for the missing ones before it."""
        x = torch.cat((x[:, :, :1].expand(-1, -1, 2**HALVINGS - 1, -1, -1), x), dim=2)
        for _ in range(HALVINGS):
            parts = [x / SIDE]
            for dim in (2, 3, 4):
                parts = [half for part in parts for half in _halves(part, dim)]
            x = torch.cat(parts, dim=1)
        return x


class InverseHaarTransform(torch.nn.Module):
    """The way back."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """B x 64 · channels x frames x height x width, to the frames after those that stand for missing ones."""
        for _ in range(HALVINGS):
            parts = list(x.chunk(2**3, dim=1))
            for dim in (4, 3, 2):
                parts = [_joined(low, high, dim) for low, high in zip(parts[::2], parts[1::2])]
            x = parts[0]
        return x[:, :, 2**HALVINGS - 1 :]


def _halves(x: torch.Tensor, dim: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Sums and differences of neighbours along *dim*; a last one alone has the one before it for a neighbour again."""
    if x.shape[dim] % 2:
        x = torch.cat((x, x.narrow(dim, x.shape[dim] - 2, 1)), dim=dim)
    first, second = x.unflatten(dim, (-1, 2)).unbind(dim + 1)
    return first + second, first - second


def _joined(low: torch.Tensor, high: torch.Tensor, dim: int) -> torch.Tensor:
    """The neighbours along *dim* whose sums and differences were *low* and *high*."""
    return torch.stack((low + high, low - high), dim=dim + 1).flatten(dim, dim + 1)


class PicturesAttention(CosmosSpatialAttentionProcessor2_0):
    """Attention of the places of each frame to each other, by what the flags say."""

    def __call__(self, attn: Any, hidden_states: torch.Tensor, attention_mask: torch.Tensor | None = None) -> torch.Tensor:
        """B x channels x frames x height x width."""
        normal = attn.norm(hidden_states)
        pictures = (layer(normal).transpose(1, 2).flatten(0, 1) for layer in (attn.to_q, attn.to_k, attn.to_v))
        attended = vae_attention()(*(part.contiguous() for part in pictures))
        return hidden_states + attn.to_out[0](attended.unflatten(0, (len(hidden_states), -1)).transpose(1, 2))


class CosmosAutoencoder(torch.nn.Module):
    """Turns videos (B x 3 x frames x height x width, -1 to 1) into latents (B x 16 x frames x height x width) and back.

    Eight frames make a latent one, but for the first, which stands alone; sides are divided by eight. Latents are scaled, by their
    place among each sixteen frames, to what Cosmos takes. Parameters are on the meta device until :func:`load_cosmos_vae`;
    ``weight_names`` are the published ones.
    """

    weight_names: WeightNames
    latent_mean: torch.Tensor
    latent_std: torch.Tensor

    def __init__(self, config: CosmosVaeConfig) -> None:
        super().__init__()
        self.config = config
        with torch.device("meta"):
            built = AutoencoderKLCosmos(
                latent_channels=config.latent_channels,
                encoder_block_out_channels=config.encoder_widths,
                decode_block_out_channels=config.decoder_widths,
            )
        self.encoder: Any = built.encoder
        self.decoder: Any = built.decoder
        self.encoder.patch_embed, self.decoder.unpatch_embed = HaarTransform(), InverseHaarTransform()
        self.quant_conv: Any = built.quant_conv
        self.post_quant_conv: Any = built.post_quant_conv
        for name, usual in zip(STATISTICS, (LATENTS_MEAN, LATENTS_STD)):
            if config.has_statistics:
                self.register_parameter(name, torch.nn.Parameter(torch.empty(len(usual), device="meta")))
            else:
                self.register_buffer(name, torch.tensor(usual), persistent=False)
        for layer in self.modules():
            if isinstance(layer, CosmosCausalAttention) and isinstance(layer.processor, CosmosSpatialAttentionProcessor2_0):
                layer.processor = PicturesAttention()
        comfy.ops.adopt_layers(self)
        self.eval().requires_grad_(False)

    def encode(self, x: torch.Tensor) -> torch.Tensor:
        """The latent of a video; frames at its end that fill no latent one are in the last."""
        z = self.quant_conv(self.encoder(x))
        mean, deviation = self._statistics(z)
        return (z - mean) / deviation * SIGMA_DATA

    def decode(self, z: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        """The video of a latent."""
        mean, deviation = self._statistics(z)
        return self.decoder(self.post_quant_conv(z / SIGMA_DATA * deviation + mean))

    def _statistics(self, z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean and deviation by channel and frame, over again for frames after those that they were taken of."""
        frames = torch.arange(z.shape[2], device=z.device)
        found = []
        for values in (self.latent_mean, self.latent_std):
            by_frame = values.to(z).view(1, z.shape[1], -1, 1, 1)
            found.append(by_frame[:, :, frames % by_frame.shape[2]])
        return found[0], found[1]


def load_cosmos_vae(model: CosmosAutoencoder, source: WeightSource, dtype: torch.dtype) -> None:
    """Give *model* its weights from *source* (no prefix; published or diffusers' names) in *dtype*. Raises ``ModelFileError``."""
    part = plain_weights(source)
    with naming_file(source.name, WHAT):
        plan = plan_cosmos_vae(part.shapes())
    model.weight_names = load_parameters(model, part, plan, dtype, WHAT).weight_names()


def plan_cosmos_vae(shapes: Mapping[str, Shape]) -> ConversionPlan:
    """Which tensor of the file becomes which parameter; nothing is copied. Haar's transform has no weights."""
    kept = {name: shape for name, shape in shapes.items() if "patcher3d." not in name}
    return plan_conversion(kept, lambda tensors: {diffusers_name(name): value for name, value in tensors.items()})


def diffusers_name(name: str) -> str:
    """diffusers' name of the tensor *name* of a published file; one of diffusers' own stays."""
    if found := MIDDLE.match(name):
        half, part, rest = found.groups()
        first, _, leaf = rest.partition(".")
        name = f"{half}.mid_block.{IN_MIDDLE[part]}.{IN_ATTENTION.get(first, first)}.{leaf}"
    elif found := LEVEL.match(name):
        half, level, part, rest = found.groups()
        blocks, number = ("down_blocks", int(level)) if half == "encoder" else ("up_blocks", LEVELS - 1 - int(level))
        name = f"{half}.{blocks}.{number}.{IN_LEVEL.get(part, part.replace('block.', 'resnets.'))}.{rest}"
    name = TWO_STEPS.sub(lambda found: f"{found[1]}{found[2]}.conv_{'st'[int(found[3])]}.", name)
    return name.replace(".conv3d.", ".").replace("nin_shortcut", "conv_shortcut")


def decode_memory_bytes(shape: Shape, dtype_bytes: int) -> float:
    """Bytes of working memory to decode latents of *shape*, B x C x frames x height x width."""
    return BYTES_PER_PIXEL * shape[2] * shape[3] * shape[4] * FRAMES_PER_LATENT * SIDE**2 * dtype_bytes


def encode_memory_bytes(shape: Shape, dtype_bytes: int) -> float:
    """Bytes of working memory to encode videos of *shape*, B x channels x frames x height x width."""
    frames = round((shape[2] + FRAMES_PER_LATENT - 1) / FRAMES_PER_LATENT) * FRAMES_PER_LATENT
    return BYTES_PER_PIXEL * frames * shape[3] * shape[4] * dtype_bytes
