"""HunyuanVideo 1's autoencoder, also Kandinsky 5's: diffusers' network over the published weights, run a few frames at a time."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own convention
from diffusers.models.autoencoders.autoencoder_kl_hunyuan_video import (
    AutoencoderKLHunyuanVideo,
    HunyuanVideoCausalConv3d,
    HunyuanVideoMidBlock3D,
    HunyuanVideoUpsampleCausal3D,
)

import comfy.ops
from comfy.families.conversion_plan import ConversionPlan, load_parameters, plan_conversion
from comfy.families.model_errors import UnknownModelError, naming_file
from comfy.families.quantised_weights import plain_weights
from comfy.families.sd_unet_config import count_blocks
from comfy.families.weight_names import WeightNames
from comfy.families.weight_source import WeightSource
from comfy.images.hunyuan_vae import CarriedConvolution, CarriedSampling, in_parts, in_turn
from comfy.ldm.modules.diffusionmodules.model import vae_attention

Shape = tuple[int, ...]

WHAT = "the VAE"
SIDE = 8
LEVELS = 4
GROUPS = 32
FRAMES_WRITTEN = 2  # of a latent at a time
FIRST = "decoder.conv_in.conv.weight"
# The published names of parts, and diffusers'; the decoder counts its levels the other way round there.
LEVEL = re.compile(r"(encoder|decoder)\.(?:down|up)\.(\d+)\.(block\.\d+|downsample|upsample)\.(.+)")
IN_LEVEL = {"downsample": "downsamplers.0", "upsample": "upsamplers.0"}
MIDDLE = re.compile(r"(encoder|decoder)\.mid\.(block_1|attn_1|block_2)\.(.+)")
IN_MIDDLE = {"block_1": "resnets.0", "attn_1": "attentions.0", "block_2": "resnets.1"}
IN_ATTENTION = {"q": "to_q", "k": "to_k", "v": "to_v", "proj_out": "to_out.0", "norm": "group_norm"}


@dataclass(frozen=True, slots=True)
class HunyuanVideoVaeConfig:
    """Sizes of one such autoencoder: channels, level by level from full resolution down, and those of latents."""

    widths: tuple[int, ...]
    latent_channels: int


def read_hunyuan_video_vae_config(shapes: Mapping[str, Shape]) -> HunyuanVideoVaeConfig:
    """The sizes that *shapes* (published or diffusers' names, no prefix) show.

    Raises ``KeyError`` for missing tensors, ``UnknownModelError`` for others of the kind.
    """
    own = {_diffusers_name(name): shape for name, shape in shapes.items()}
    levels = count_blocks(own, "encoder.down_blocks.{}.")
    widths = tuple(own[f"encoder.down_blocks.{level}.resnets.0.conv1.conv.weight"][0] for level in range(levels))
    if levels != LEVELS or any(width % GROUPS for width in widths):
        raise UnknownModelError(f"it has {levels} levels of {list(widths)} channels; supported: {LEVELS} levels of multiples of {GROUPS}")
    return HunyuanVideoVaeConfig(widths, own[FIRST][1])


class Convolution(CarriedConvolution, HunyuanVideoCausalConv3d):
    """That of HunyuanVideo 1."""


class CarriedUpsample(CarriedSampling, HunyuanVideoUpsampleCausal3D):
    """Twice as many rows and columns; in some levels also twice as many frames, but for the first."""

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """B x channels x frames x height x width."""
        alone = 1 if self._is_first() else 0
        factors = tuple(float(factor) for factor in self.upsample_factor)
        parts = []
        if alone:
            parts.append(F.interpolate(hidden_states[:, :, 0], scale_factor=factors[1:], mode="nearest")[:, :, None])
        if hidden_states.shape[2] > alone:
            parts.append(F.interpolate(hidden_states[:, :, alone:].contiguous(), scale_factor=factors, mode="nearest"))
        return self.conv(parts[0] if len(parts) == 1 else torch.cat(parts, dim=2))


class Middle(HunyuanVideoMidBlock3D):
    """Attention of all positions of all frames to each other, as in ComfyUI, between two blocks."""

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """B x C x frames x height x width."""
        x = self.resnets[0](hidden_states)
        layers: Any = self.attentions[0]
        places = layers.group_norm(x).movedim(1, -1)
        query, key, value = (layer(places).movedim(-1, 1) for layer in (layers.to_q, layers.to_k, layers.to_v))
        attended = vae_attention()(query.contiguous(), key.contiguous(), value.contiguous())
        return self.resnets[1](x + layers.to_out[0](attended.movedim(1, -1)).movedim(-1, 1))


SWAPPED: dict[type, type] = {
    HunyuanVideoCausalConv3d: Convolution,
    HunyuanVideoUpsampleCausal3D: CarriedUpsample,
    HunyuanVideoMidBlock3D: Middle,
}


class HunyuanVideoAutoencoder(torch.nn.Module):
    """Turns videos (B x 3 x frames x height x width, -1 to 1) into latents (B x 16 x frames x height x width) and back.

    Four frames make a latent one, but for the first, which stands alone; sides are divided by eight. Parameters are on the meta device
    until :func:`load_hunyuan_video_vae`; ``weight_names`` are the published ones. As in ComfyUI, means and deviations of a norm are those
    of the frames of one call, and what layers keep of earlier frames is freed after each video.
    """

    weight_names: WeightNames

    def __init__(self, config: HunyuanVideoVaeConfig) -> None:
        super().__init__()
        self.config = config
        with torch.device("meta"):
            built = AutoencoderKLHunyuanVideo(
                latent_channels=config.latent_channels, block_out_channels=config.widths, norm_num_groups=GROUPS
            )
        self.encoder: Any = built.encoder
        self.decoder: Any = built.decoder
        self.quant_conv, self.post_quant_conv = built.quant_conv, built.post_quant_conv
        for layer in self.modules():
            layer.__class__ = SWAPPED.get(type(layer), type(layer))
        comfy.ops.adopt_layers(self)
        self.eval().requires_grad_(False)

    def encode(self, x: torch.Tensor) -> torch.Tensor:
        """The mean of the latent distribution; up to three frames that fill no latent one at the end are left out."""

        def down(frames: torch.Tensor) -> torch.Tensor:
            frames = self.encoder.conv_in(frames)
            for block in self.encoder.down_blocks:
                frames = block(frames)
            return frames

        whole = self.encoder.mid_block(in_turn([self.encoder.conv_in, *self.encoder.down_blocks], down, in_parts(x)))
        moments = self.encoder.conv_out(self.encoder.conv_act(self.encoder.conv_norm_out(whole)))
        return self.quant_conv(moments).chunk(2, dim=1)[0]

    def decode(self, z: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        """The video of a latent."""
        whole = self.decoder.mid_block(self.decoder.conv_in(self.post_quant_conv(z)))

        def up(frames: torch.Tensor) -> torch.Tensor:
            for block in self.decoder.up_blocks:
                frames = block(frames)
            return self.decoder.conv_out(self.decoder.conv_act(self.decoder.conv_norm_out(frames)))

        return in_turn([*self.decoder.up_blocks, self.decoder.conv_out], up, whole.split(FRAMES_WRITTEN, dim=2))


def load_hunyuan_video_vae(model: HunyuanVideoAutoencoder, source: WeightSource, dtype: torch.dtype) -> None:
    """Give *model* its weights from *source* (no prefix; published or diffusers' names) in *dtype*. Raises ``ModelFileError``."""
    part = plain_weights(source)
    with naming_file(source.name, WHAT):
        plan = plan_hunyuan_video_vae(part.shapes())
    model.weight_names = load_parameters(model, part, plan, dtype, WHAT).weight_names()


def plan_hunyuan_video_vae(shapes: Mapping[str, Shape]) -> ConversionPlan:
    """Which tensor of the file becomes which parameter; nothing is copied."""
    return plan_conversion(shapes, lambda tensors: dict(_converted(name, value) for name, value in tensors.items()))


def _converted(name: str, value: torch.Tensor) -> tuple[str, torch.Tensor]:
    """diffusers' name and form: published attention layers are convolutions of single places, or matrices."""
    own = _diffusers_name(name)
    return own, value.flatten(1) if ".attentions." in own and value.ndim > 2 else value


def _diffusers_name(name: str) -> str:
    if found := MIDDLE.match(name):
        half, part, rest = found.groups()
        first, _, leaf = rest.partition(".")
        return f"{half}.mid_block.{IN_MIDDLE[part]}.{IN_ATTENTION.get(first, first) if part == 'attn_1' else first}.{leaf}"
    if found := LEVEL.match(name):
        half, level, part, rest = found.groups()
        blocks, number = ("down_blocks", int(level)) if half == "encoder" else ("up_blocks", LEVELS - 1 - int(level))
        inner = IN_LEVEL.get(part, part.replace("block.", "resnets."))
        return f"{half}.{blocks}.{number}.{inner}.{rest.replace('nin_shortcut', 'conv_shortcut')}"
    return name.replace(".norm_out.", ".conv_norm_out.")


def decode_memory_bytes(shape: Shape, dtype_bytes: int) -> float:
    """Bytes of working memory to decode latents of *shape*, B x C x frames x height x width; measured by ComfyUI."""
    return 2800 * min(8, (shape[2] - 1) * 4 + 1) * shape[3] * shape[4] * SIDE**2 * dtype_bytes


def encode_memory_bytes(shape: Shape, dtype_bytes: int) -> float:
    """Bytes of working memory to encode videos of *shape*, B x channels x frames x height x width; measured by ComfyUI."""
    return 1400 * min(9, shape[2]) * shape[3] * shape[4] * dtype_bytes
