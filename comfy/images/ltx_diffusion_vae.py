"""LTX 2.5's video autoencoder: LTX 2's encoder, and diffusers' decoder, which makes pixels of noise in one step, over published weights.

Shapes: B x frames x height x width x channels inside the decoder. Tokens attend to their neighbourhood only, as in A. Hassani, S. Walton,
J. Li, S. Li, H. Shi, "Neighborhood Attention Transformer" (2023).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from diffusers.models.autoencoders.ltx2_diffusion_decoder import LTX2VideoDiffusionDecoder3d, LTX2VideoVaeNeighborhoodAttention

import comfy.ops
from comfy.families.conversion_plan import load_parameters, plan_conversion
from comfy.families.family_settings import part_settings
from comfy.families.model_errors import naming_file
from comfy.families.quantised_weights import plain_weights
from comfy.families.weight_names import WeightNames
from comfy.families.weight_source import WeightSource
from comfy.images.ltx_vae import FRAMES_PER_LATENT, LOG_VARIANCES, WHAT, LatentStatistics, LtxAutoencoder
from comfy.images.ltx_vae_halves import Encoder
from comfy.quantisation import kitchen

Shape = tuple[int, ...]

MARK = "decoder.conv_in_x_t.weight"
SEED = 0  # of the noise, so that a latent always gives the same video
DECODE_BYTES = 1700 * FRAMES_PER_LATENT**3  # of working memory per number, measured by ComfyUI
# The encoder of files without metadata.
BLOCKS = [
    *(["res_x", {"num_layers": 4}], ["compress_space_res", {"multiplier": 2}], ["res_x", {"num_layers": 6}]),
    *(["compress_time_res", {"multiplier": 2}], ["res_x", {"num_layers": 4}], ["compress_all_res", {"multiplier": 2}]),
    *(["res_x", {"num_layers": 2}], ["compress_all_res", {"multiplier": 1}], ["res_x", {"num_layers": 2}]),
]
# Settings of the decoder that diffusers calls the same.
SAME = (
    *("in_channels", "out_channels", "patch_size", "head_dim", "stage_channels", "stage_depths", "stage_kernels", "stage5_kernel"),
    *("t_emb_dim", "timestep_scale_multiplier", "default_num_inference_steps"),
)
# Names of the decoder's tensors in files, by diffusers'; attention's three are one behind the other in theirs.
RENAMED = {
    ".attn.to_out.0.": ".attn.proj.",
    ".attn.norm_q.": ".attn.q_norm.",
    ".attn.norm_k.": ".attn.k_norm.",
    ".t_embedder.timestep_embedder.linear_1.": ".t_embedder.mlp.0.",
    ".t_embedder.timestep_embedder.linear_2.": ".t_embedder.mlp.2.",
}
JOINED = {f".attn.to_{name}.": part for part, name in enumerate("qkv")}


@dataclass(frozen=True, slots=True)
class DiffusionVaeConfig:
    """One such autoencoder: what files say of its halves, nothing where they say nothing."""

    encoder: Mapping[str, Any]
    decoder: Mapping[str, Any]
    output: str = "x0"

    def decoder_arguments(self) -> dict[str, Any]:
        """Constructor arguments of diffusers' decoder, whose own defaults are the published sizes."""
        given = self.decoder
        arguments = {name: given[name] for name in SAME if name in given}
        if "upsamples" in given:
            arguments["upsample_strides"] = tuple(tuple(stride) for stride, _ in given["upsamples"])
            arguments["upsample_channel_reductions"] = tuple(reduction for _, reduction in given["upsamples"])
        return {**arguments, "model_output_type": self.output}


def read_diffusion_vae_config(source: WeightSource) -> DiffusionVaeConfig:
    """The settings in *source*'s metadata. Raises ``ModelFileError`` where these are not understood."""
    settings = part_settings(source.metadata, "vae", source.name)
    return DiffusionVaeConfig(settings.get("encoder", {}), settings.get("decoder", {}), settings.get("model_output_type", "x0"))


class DiffusionAutoencoder(LtxAutoencoder):
    """Turns videos (B x 3 x frames x height x width, -1 to 1) into latents as its base class does, and these back.

    ``weight_names`` are the published ones.
    """

    weight_names: WeightNames

    def __init__(self, config: DiffusionVaeConfig) -> None:
        torch.nn.Module.__init__(self)
        given = config.encoder
        self.config: Any = config
        self.latent_channels, self.patch = given.get("out_channels", 128), given.get("patch_size", 4)
        pixels = given.get("in_channels", 3) * self.patch**2
        extra = LOG_VARIANCES.get(given.get("latent_log_var", "constant"), self.latent_channels)
        padding = given.get("spatial_padding_mode", "zeros")
        with torch.device("meta"):
            blocks, width = given.get("blocks", BLOCKS), given.get("base_channels", 128)
            self.encoder = Encoder(pixels, self.latent_channels, blocks, width, extra, padding)
            self.decoder: Any = LTX2VideoDiffusionDecoder3d(**config.decoder_arguments())
            self.per_channel_statistics = LatentStatistics(self.latent_channels)
        for layer in self.decoder.modules():
            if isinstance(layer, LTX2VideoVaeNeighborhoodAttention):
                layer.__class__ = _Attention
        comfy.ops.adopt_layers(self)
        self.eval().requires_grad_(False)

    def decode(self, x: torch.Tensor, **ignored: Any) -> torch.Tensor:
        """The video of a latent."""
        numbers = torch.Generator(device=x.device).manual_seed(SEED)
        return self.decoder(self.per_channel_statistics.un_normalize(x), generator=numbers)


class _Attention(LTX2VideoVaeNeighborhoodAttention):
    """diffusers' attention to a neighbourhood, which is as large as the video where that is smaller, without a mask as large as both."""

    def build_block_mask(self, hidden_states: torch.Tensor) -> None:
        """None is needed."""

    def forward(self, hidden_states: torch.Tensor, block_mask: Any = None) -> torch.Tensor:
        """The same shape as *hidden_states*."""
        query, key, value = self.project_qkv(hidden_states)
        kernel = tuple(min(size, length) for size, length in zip(self.kernel_size, hidden_states.shape[1:4]))
        attend = kitchen.neighbourhood_attention() or neighbourhood_attention
        return self.to_out[0](attend(query, key, value, list(kernel), scale=1.0).flatten(-2))


def neighbourhood_attention(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, kernel: list[int], scale: float = 1.0
) -> torch.Tensor:
    """Attention (B x frames x height x width x heads x channels) of each token to *kernel* (frames, rows, columns) around it.

    At a border the neighbourhood lies within. It goes row by row; comfy-kitchen's kernels do the same in larger pieces.
    """
    _, frames, height, width, *_ = query.shape
    column = torch.arange(width, device=query.device)
    first = _first(column, kernel[2], width)
    near = (column[None] >= first[:, None]) & (column[None] < first[:, None] + kernel[2])
    mask = near.repeat(1, kernel[0] * kernel[1])
    times, rows = (_first(torch.arange(length), size, length).tolist() for size, length in zip(kernel, (frames, height)))
    result = torch.empty_like(query)
    for frame in range(frames):
        for row in range(height):
            area = slice(times[frame], times[frame] + kernel[0]), slice(rows[row], rows[row] + kernel[1])
            keys, values = (part[:, area[0], area[1]].flatten(1, 3).transpose(1, 2) for part in (key, value))
            asked = query[:, frame, row].transpose(1, 2)
            found = torch.nn.functional.scaled_dot_product_attention(asked, keys, values, attn_mask=mask, scale=scale)
            result[:, frame, row] = found.transpose(1, 2)
    return result


def _first(places: torch.Tensor, size: int, length: int) -> torch.Tensor:
    """Where the neighbourhood of *size* around each of *places* begins."""
    return (places - size // 2).clamp(0, length - size)


def load_diffusion_vae(model: DiffusionAutoencoder, source: WeightSource, dtype: torch.dtype) -> None:
    """Give *model* its weights from *source* (no prefix, published names) in *dtype*. Raises ``ModelFileError``."""
    own = [name for name, _ in model.named_parameters()]
    with naming_file(source.name, WHAT):
        part = plain_weights(source)
        plan = plan_conversion(part.shapes(), lambda tensors: _converted(own, tensors))
    model.weight_names = load_parameters(model, part, plan, dtype, WHAT).weight_names()


def _converted(own: list[str], tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The parameters *own*, as far as *tensors* have them."""
    found = {}
    for name in own:
        for mark, part in JOINED.items():
            joined = tensors.get(name.replace(mark, ".attn.qkv.")) if mark in name else None
            if joined is not None:
                found[name] = joined.chunk(3)[part]
        published = name
        for theirs, ours in RENAMED.items():
            published = published.replace(theirs, ours)
        if published in tensors:
            found[name] = tensors[published]
    return found


def decode_memory_bytes(shape: Shape, dtype_bytes: int) -> float:
    """Bytes of working memory to decode latents of *shape*, B x channels x frames x height x width."""
    return DECODE_BYTES * shape[2] * shape[3] * shape[4] * dtype_bytes
