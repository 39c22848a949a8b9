"""LTX's video autoencoders, of LTX-Video 0.9 and of LTX 2: diffusers' layers, laid out as the metadata of a file says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl_wan import patchify, unpatchify

import comfy.ops
from comfy.families.family_settings import part_settings
from comfy.families.model_errors import UnknownModelError, naming_file
from comfy.families.published_weights import load_published
from comfy.families.quantised_weights import plain_weights
from comfy.families.weight_source import WeightSource
from comfy.images.ltx_vae_halves import Decoder, Encoder

Shape = tuple[int, ...]

WHAT = "the VAE"
MARK = "decoder.up_blocks.0.res_blocks.0.conv1.conv.weight"
SIDE, FRAMES_PER_LATENT = 32, 8
FRAMES_READ = 2 * FRAMES_PER_LATENT  # at a time, of a video that is encoded
DECODE_BYTES, ENCODE_BYTES = 1200 * FRAMES_PER_LATENT**3, 80  # of working memory per number, measured by ComfyUI
FEWEST_FRAMES = 7
# Further channels of an encoder's last layer, by what they say.
LOG_VARIANCES = {"uniform": 1, "constant": 1, "none": 0}
# The decoders and encoders of files without metadata: 0.9, 0.9.1, 0.9.5.
OLD_BLOCKS = [
    *(["res_x", 4], ["compress_all", 1], ["res_x_y", 1], ["res_x", 3], ["compress_all", 1], ["res_x_y", 1], ["res_x", 3]),
    *(["compress_all", 1], ["res_x", 3], ["res_x", 4]),
]
HALVING = ["compress_all", {"residual": True, "multiplier": 2}]
LATER_ENCODER = [
    *(["res_x", 4], ["compress_space_res", {"multiplier": 2}], ["res_x", 6], ["compress_time_res", {"multiplier": 2}], ["res_x", 6]),
    *(["compress_all_res", {"multiplier": 2}], ["res_x", 2], ["compress_all_res", {"multiplier": 2}], ["res_x", 2]),
]


def _noisy(layers: int, noisy: bool) -> list[Any]:
    return ["res_x", {"num_layers": layers, "inject_noise": noisy}]


DECODERS = {
    "0.9": OLD_BLOCKS,
    "0.9.1": [_noisy(5, True), HALVING, _noisy(6, True), HALVING, _noisy(7, True), HALVING, _noisy(8, False)],
    "0.9.5": [_noisy(5, False), HALVING, _noisy(5, False), HALVING, _noisy(5, False), HALVING, _noisy(5, False)],
}
ENCODERS = {"0.9": OLD_BLOCKS, "0.9.1": OLD_BLOCKS, "0.9.5": LATER_ENCODER}


@dataclass(frozen=True, slots=True)
class LtxVaeConfig:
    """One such autoencoder: the published settings, or what stands for them in files without."""

    settings: Mapping[str, Any]

    def __post_init__(self) -> None:
        for name, supported in (("dims", 3), ("norm_layer", "pixel_norm")):
            if self.settings.get(name, supported) != supported:
                raise UnknownModelError(f"it has {name} {self.settings[name]!r} in its metadata; supported: {supported!r}")

    def __getitem__(self, name: str) -> Any:
        return self.settings[name]

    def get(self, name: str, default: Any = None) -> Any:
        """A setting."""
        return self.settings.get(name, default)

    def blocks(self, half: str) -> Any:
        """The blocks of a *half*, "encoder" or "decoder"."""
        return self.settings.get(f"{half}_blocks", self.settings.get("blocks"))


def read_ltx_vae_config(source: WeightSource) -> LtxVaeConfig:
    """The settings in *source*'s metadata, or those that its shapes show. Raises ``ModelFileError``."""
    settings = part_settings(source.metadata, "vae", source.name)
    if settings:
        return LtxVaeConfig(settings)
    shapes = source.shapes()
    kind = "0.9"
    if shapes[MARK][0] == 1024:
        kind = "0.9.5" if "encoder.down_blocks.1.conv.conv.bias" in shapes else "0.9.1"
    blocks = {"encoder_blocks": ENCODERS[kind], "decoder_blocks": DECODERS[kind]}
    return LtxVaeConfig({"patch_size": 4, "latent_log_var": "uniform", "timestep_conditioning": kind != "0.9", **blocks})


class LatentStatistics(torch.nn.Module):
    """Mean and deviation of each channel of latents, under the published names."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        for name in ("std-of-means", "mean-of-means"):
            self.register_parameter(name, torch.nn.Parameter(torch.empty(channels)))

    def _values(self, name: str, like: torch.Tensor) -> torch.Tensor:
        return self.get_parameter(name).view(1, -1, *(1,) * (like.ndim - 2)).to(like)

    def un_normalize(self, x: torch.Tensor) -> torch.Tensor:
        """Latents as the decoder takes them."""
        return x * self._values("std-of-means", x) + self._values("mean-of-means", x)

    def normalize(self, x: torch.Tensor) -> torch.Tensor:
        """Latents as samplers take them."""
        return (x - self._values("mean-of-means", x)) / self._values("std-of-means", x)


class LtxAutoencoder(torch.nn.Module):
    """Turns videos (B x 3 x frames x height x width, -1 to 1) into latents (B x 128 x frames x height x width) and back.

    Eight frames make a latent one, but for the first, which stands alone; sides are divided by 32. Parameters are on the meta device until
    :func:`load_ltx_vae`, under their published names. Both go through the layers piece by piece, so that long videos take no more memory
    there than short ones. A decoder that is told how much noise there is gets latents with a little of it.
    """

    def __init__(self, config: LtxVaeConfig) -> None:
        super().__init__()
        self.config = config
        self.timestep_conditioning = config.get("timestep_conditioning", False)
        self.decode_noise_scale, self.decode_timestep = config.get("decode_noise_scale", 0.025), config.get("decode_timestep", 0.05)
        self.latent_channels = config.get("latent_channels", 128)
        self.patch = config.get("patch_size", 1)
        spread = config.get("latent_log_var", "per_channel" if config.get("double_z", True) else "none")
        patches = [config.get(name, 3) * self.patch**2 for name in ("in_channels", "out_channels")]
        widths = [config.get(f"{half}_base_channels", 128) for half in ("encoder", "decoder")]
        paddings = [config.get("spatial_padding_mode", default) for default in ("zeros", "reflect")]
        causal = config.get("causal_decoder", False)
        extra = LOG_VARIANCES.get(spread, self.latent_channels)
        with torch.device("meta"):
            self.encoder = Encoder(patches[0], self.latent_channels, config.blocks("encoder"), widths[0], extra, paddings[0])
            later = (widths[1], causal, self.timestep_conditioning, paddings[1])
            self.decoder = Decoder(self.latent_channels, patches[1], config.blocks("decoder"), *later)
            self.per_channel_statistics = LatentStatistics(self.latent_channels)
        comfy.ops.adopt_layers(self)
        self.eval().requires_grad_(False)

    def encode(self, x: torch.Tensor, device: Any = None) -> torch.Tensor:
        """The mean of the latent distribution; up to seven frames that fill no latent one at the end are left out."""
        whole = 1 + (x.shape[2] - 1) // FRAMES_PER_LATENT * FRAMES_PER_LATENT
        frames = [x[:, :, :1], *x[:, :, 1:whole].split(FRAMES_READ, dim=2)]
        pieces = ((patchify(part, self.patch), number == len(frames)) for number, part in enumerate(frames, 1) if part.shape[2])
        found = self.encoder(pieces, x.dtype)
        return self.per_channel_statistics.normalize(found[:, : self.latent_channels])

    def decode(self, x: torch.Tensor, **ignored: Any) -> torch.Tensor:
        """The video of a latent."""
        if self.timestep_conditioning:
            share = self.decode_noise_scale
            x = torch.randn_like(x) * share + (1.0 - share) * x
        time = self.decode_timestep if self.timestep_conditioning else None
        pieces = self.decoder(self.per_channel_statistics.un_normalize(x), time)
        video, filled = None, 0
        for piece in (unpatchify(part, self.patch) for part in pieces):
            if video is None:
                frames = (x.shape[2] - 1) * FRAMES_PER_LATENT + 1
                video = piece.new_empty((*piece.shape[:2], max(frames, piece.shape[2]), *piece.shape[3:]))
            video[:, :, filled : filled + piece.shape[2]] = piece
            filled += piece.shape[2]
        assert video is not None
        return video[:, :, :filled]


def load_ltx_vae(model: LtxAutoencoder, source: WeightSource, dtype: torch.dtype) -> None:
    """Give *model* its weights from *source* (no prefix, published names) in *dtype*. Raises ``ModelFileError``."""
    with naming_file(source.name, WHAT):
        load_published(model, plain_weights(source), dtype, WHAT)


def decode_memory_bytes(shape: Shape, dtype_bytes: int) -> float:
    """Bytes of working memory to decode latents of *shape*, B x channels x frames x height x width."""
    return DECODE_BYTES * shape[2] * shape[3] * shape[4] * dtype_bytes


def encode_memory_bytes(shape: Shape, dtype_bytes: int) -> float:
    """Bytes of working memory to encode videos of *shape*, B x channels x frames x height x width."""
    return ENCODE_BYTES * max(shape[2], FEWEST_FRAMES) * shape[3] * shape[4] * dtype_bytes
