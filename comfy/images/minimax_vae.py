"""MiniMax H3's autoencoder of videos: diffusers' encoder over the published weights, and a transformer that decodes.

Videos go through in clips of 17 frames, pictures in tiles of 256 pixels whose seams are blended, as the model was trained; so only a clip
is ever on the device.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own convention
from diffusers.models.autoencoders.autoencoder_kl_minimax_h3 import MiniMaxH3VideoCausalConv3d, MiniMaxH3VideoEncoder3d

import comfy.ops
from comfy.families.conversion_plan import ConversionPlan, load_parameters, plan_conversion
from comfy.families.model_errors import ModelFileError, naming_file
from comfy.families.quantised_weights import plain_weights
from comfy.families.sd_unet_config import count_blocks
from comfy.families.weight_names import WeightNames
from comfy.families.weight_source import WeightSource
from comfy.images.minimax_decoder import FRAMES, HEAD, SIDE, Decoder
from comfy.images.seamed_tiles import blended, in_tiles

Shape = tuple[int, ...]

WHAT = "the VAE"
CLIP, CLIP_CELLS = 17, 5  # frames that are encoded at once, and the latent frames they make
SHORT_FRAMES, SHORT_CELLS = 5, 2  # of a video's end
WINDOW = CLIP_CELLS + SHORT_CELLS  # latent frames that are decoded at once
LEAD = FRAMES * CLIP_CELLS - CLIP  # frames that a window's first latent frame makes too many
DECODED_BYTES_FRAMES = FRAMES * WINDOW + 2
# Means and deviations of the colours that pictures are counted in, and those of latents, which files also hold.
COLOURS = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
MEANS = (
    "0.8580903 -0.9606591 1.066164 -0.5090325 -0.2727582 -1.3675414 -0.2553255 -0.2690755 -0.5376841 -0.0464097 0.665737 0.1969013 "
    "-0.5460601 -0.4035342 -0.2368302 0.2592845 -0.3013394 0.211342 -1.1206849 0.3581933 -0.0422514 0.260483 0.2286409 0.7056032"
)
DEVIATIONS = (
    "1.2223775 1.2767264 1.6831775 1.7549455 1.5636216 2.1941435 0.9653138 1.0569886 0.8419489 0.7729953 1.8955938 0.9468418 "
    "0.799681 0.449889 0.71974 0.6936293 2.9610951 2.7694199 3.0496185 2.1088054 3.2762263 3.1627357 2.2816813 2.6127844"
)
LEVEL = re.compile(r"encoder\.down\.(\d+)\.(block\.(\d+)|downsample)\.(.+)")


@dataclass(frozen=True, slots=True)
class MiniMaxVaeConfig:
    """Sizes of one such autoencoder: the encoder's channels, level by level, those of latents, and the decoder's."""

    widths: tuple[int, ...]
    latent_channels: int
    layers: int
    width: int
    tokens: int


def read_minimax_vae_config(shapes: Mapping[str, Shape]) -> MiniMaxVaeConfig:
    """The sizes that *shapes* (published names, no prefix) show. Raises ``KeyError`` for missing tensors, ``ModelFileError`` for a decoder
    whose width is no whole number of heads.
    """
    levels = count_blocks(shapes, "encoder.down.{}.")
    width = shapes["decoder.x_embedder.weight"][0]
    if width % HEAD:
        raise ModelFileError(f"its decoder has {width} values per token, which is no multiple of {HEAD}")
    return MiniMaxVaeConfig(
        widths=tuple(shapes[f"encoder.down.{level}.block.0.conv1.weight"][0] for level in range(levels)),
        latent_channels=shapes["post_quant_conv.weight"][1],
        layers=count_blocks(shapes, "decoder.transformer_blocks.{}."),
        width=width,
        tokens=shapes["decoder.register_tokens"][1],
    )


class CausalConvolution(MiniMaxH3VideoCausalConv3d):
    """A convolution over frames and pictures that sees no later frame; of a single frame, a convolution of the picture."""

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """B x channels x frames x height x width."""
        if hidden_states.shape[2] > 1 or self.temporal_padding != self.kernel_size[0] - 1 or not self.temporal_padding:
            return super().forward(hidden_states)
        # What comes before is black, so only the kernel's last frame counts.
        picture = F.pad(hidden_states[:, :, 0], (self.spatial_padding,) * 4, mode=self.spatial_padding_mode)
        return F.conv2d(picture, self.weight[:, :, -1], self.bias, self.stride[1:])[:, :, None]


class MiniMaxAutoencoder(torch.nn.Module):
    """Turns videos (B x 3 x frames x height x width, -1 to 1) into latents (B x 24 x frames x height x width) and back, to 0 to 1.

    17 n + 5 frames are 5 n + 2 latent ones, a picture is one. Parameters are on the meta device until :func:`load_minimax_vae`;
    ``weight_names`` are the published ones.
    """

    weight_names: WeightNames
    comfy_has_chunked_io = True

    def __init__(self, config: MiniMaxVaeConfig) -> None:
        super().__init__()
        self.config = config
        channels = config.latent_channels
        with torch.device("meta"):
            self.encoder: Any = MiniMaxH3VideoEncoder3d(out_channels=2 * channels, block_out_channels=config.widths)
            self.quant_conv = torch.nn.Conv3d(2 * channels, 2 * channels, 1)
            self.post_quant_conv = torch.nn.Conv3d(channels, channels, 1)
            self.decoder = Decoder(channels, config.layers, config.width, config.tokens)
            self.latents_mean, self.latents_std = (torch.nn.Parameter(torch.empty(channels)) for _ in range(2))
        for layer in self.modules():
            if isinstance(layer, MiniMaxH3VideoCausalConv3d):
                layer.__class__ = CausalConvolution
        comfy.ops.adopt_layers(self)
        self.eval().requires_grad_(False)

    def encode(self, x: torch.Tensor, device: torch.device | None = None) -> torch.Tensor:
        """The mean of the latent distribution, normalised, float32. Clip by clip *x* comes to *device* (None: it is there); the last one's
        last frame is repeated where frames are missing.
        """
        clips = [x] if x.shape[2] == 1 else [self._filled(clip) for clip in x.split(CLIP, dim=2)]
        moments = torch.cat(
            [in_tiles(self._colours(clip.to(x.device if device is None else device)), self._moments, SIDE, 1) for clip in clips], dim=2
        )
        moments = moments[:, :, -1:] if x.shape[2] == 1 else moments[:, :, : moments.shape[2] - (CLIP_CELLS - SHORT_CELLS)]
        mean = moments.float().chunk(2, dim=1)[0]
        return (mean - _per_channel(self.latents_mean, mean)) / _per_channel(self.latents_std, mean)

    @staticmethod
    def _filled(clip: torch.Tensor) -> torch.Tensor:
        missing = CLIP - clip.shape[2]
        return torch.cat((clip, clip[:, :, -1:].expand(-1, -1, missing, -1, -1)), dim=2) if missing else clip

    @staticmethod
    def _colours(video: torch.Tensor) -> torch.Tensor:
        means, deviations = (_per_channel(torch.tensor(numbers), video) for numbers in COLOURS)
        return ((video + 1.0) * 0.5 - means) / deviations

    def _moments(self, clip: torch.Tensor) -> torch.Tensor:
        return self.quant_conv(self.encoder(clip))

    def decode_output_shape(self, shape: Shape) -> Shape:
        """The shape of the video of latents of *shape*."""
        batch, _, cells, height, width = shape
        return (batch, 3, frames_of(cells), height * SIDE, width * SIDE)

    def decode(self, z: torch.Tensor, output_buffer: torch.Tensor | None = None, **kwargs: Any) -> torch.Tensor:
        """The video of a latent, float32, 0 to 1, in *output_buffer* (None: a new one where *z* is)."""
        z = z * _per_channel(self.latents_std, z) + _per_channel(self.latents_mean, z)
        if output_buffer is None:
            output_buffer = torch.empty(self.decode_output_shape(z.shape), dtype=torch.float32, device=z.device)
        written = 0
        for part in self._parts(z):
            count = min(part.shape[2], output_buffer.shape[2] - written)
            means, deviations = (_per_channel(torch.tensor(numbers, dtype=torch.float32), part.float()) for numbers in COLOURS)
            colours = (part[:, :, :count] * deviations).add_(means).clamp_(0.0, 1.0)
            output_buffer[:, :, written : written + count].copy_(colours)
            written += count
        return output_buffer

    def _parts(self, z: torch.Tensor) -> Iterator[torch.Tensor]:
        """The video, part by part; more of it than there is, where the last latent frame was repeated to fill a window."""
        if z.shape[2] == 1:
            yield self._pixels(z)[:, :, -1:]
            return
        windows = max(1, -(-(z.shape[2] - SHORT_CELLS) // CLIP_CELLS))
        missing = windows * CLIP_CELLS + SHORT_CELLS - z.shape[2]
        z = torch.cat((z, z[:, :, -1:].expand(-1, -1, missing, -1, -1)), dim=2) if missing else z
        end = None
        for window in range(windows):
            pixels = self._pixels(z[:, :, window * CLIP_CELLS : window * CLIP_CELLS + WINDOW])
            part = pixels[:, :, LEAD : LEAD + CLIP]
            yield part if end is None else blended(end, part, 2)
            end = pixels[:, :, LEAD + CLIP + LEAD :].clone()
        if end is not None:
            yield end

    def _pixels(self, z: torch.Tensor) -> torch.Tensor:
        return in_tiles(z, lambda tile: self.decoder(self.post_quant_conv(tile)), 1, SIDE)


def frames_of(cells: int) -> int:
    """The frames of a video of *cells* latent ones."""
    return sum(1 if cell % CLIP_CELLS == 0 else FRAMES for cell in range(cells))


def whole_frames_of(cells: float) -> int:
    """The frames of a video that ends where a clip does: of at most *cells* latent ones."""
    return max(1, int(cells - SHORT_CELLS) // CLIP_CELLS * CLIP + SHORT_FRAMES)


def cells_of(frames: float) -> int:
    """The latent frames of such a video of at most *frames*."""
    return max(1, int(frames - SHORT_FRAMES) // CLIP * CLIP_CELLS + SHORT_CELLS) if frames > 1 else 1


def _per_channel(values: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    return values.to(like).view(1, -1, 1, 1, 1)


def load_minimax_vae(model: MiniMaxAutoencoder, source: WeightSource, dtype: torch.dtype) -> None:
    """Give *model* its weights from *source* (no prefix; published names) in *dtype*. Raises ``ModelFileError``.

    Files without the means and deviations of latents get those of the published model.
    """
    part = plain_weights(source)
    for name, numbers in (("latents_mean", MEANS), ("latents_std", DEVIATIONS)):
        if name not in part.shapes():
            delattr(model, name)
            model.register_buffer(name, torch.tensor([float(number) for number in numbers.split()]))
    with naming_file(source.name, WHAT):
        plan = plan_minimax_vae(part.shapes())
    model.weight_names = load_parameters(model, part, plan, dtype, WHAT).weight_names()


def plan_minimax_vae(shapes: Mapping[str, Shape]) -> ConversionPlan:
    """Which tensor of the file becomes which parameter; nothing is copied."""
    return plan_conversion(shapes, lambda tensors: {_own_name(name): value for name, value in tensors.items()})


def _own_name(name: str) -> str:
    found = LEVEL.match(name)
    if found is None:
        return name
    level, part, number, rest = found.groups()
    inner = "downsamplers.0" if part == "downsample" else f"resnets.{number}"
    return f"encoder.down_blocks.{level}.{inner}.{rest.replace('nin_shortcut', 'conv_shortcut')}"


def decode_memory_bytes(shape: Shape, dtype_bytes: int) -> float:
    """Bytes of working memory to decode latents of *shape*, B x C x frames x height x width; measured by ComfyUI."""
    frames = frames_of(shape[2])
    fixed = 110e6 if frames <= CLIP + SHORT_FRAMES else 270e6
    return (9.5 * min(frames, DECODED_BYTES_FRAMES) * shape[3] * shape[4] * SIDE**2 + fixed) * dtype_bytes * 1.03


def encode_memory_bytes(shape: Shape, dtype_bytes: int) -> float:
    """Bytes of working memory to encode videos of *shape*, B x channels x frames x height x width; measured by ComfyUI."""
    frames = min(shape[2], CLIP)
    each, fixed = (7.0, 110e6) if shape[2] == 1 else (9.5, 1.3e9)
    return (each * frames * shape[3] * shape[4] + fixed) * dtype_bytes * 1.03
