"""HunyuanVideo 1.5's autoencoder: diffusers' network over the published weights, run a few frames at a time."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own convention
from diffusers.models.autoencoders.autoencoder_kl_hunyuanvideo15 import (
    AutoencoderKLHunyuanVideo15,
    HunyuanVideo15AttnBlock,
    HunyuanVideo15CausalConv3d,
    HunyuanVideo15Downsample,
    HunyuanVideo15Upsample,
)

import comfy.ops
from comfy.families.conversion_plan import ConversionPlan, load_parameters, plan_conversion
from comfy.families.model_errors import UnknownModelError, naming_file
from comfy.families.quantised_weights import plain_weights
from comfy.families.sd_unet_config import count_blocks
from comfy.families.weight_names import WeightNames
from comfy.families.weight_source import WeightSource
from comfy.ldm.modules.diffusionmodules.model import vae_attention

Shape = tuple[int, ...]

WHAT = "the VAE"
MARK = "decoder.mid.block_1.norm1.gamma"
SIDE, FRAMES_PER_LATENT = 16, 4
FRAMES_READ, FRAMES_WRITTEN = 2 * FRAMES_PER_LATENT, 2  # at a time: of a video, of a latent
LATENT_CHANNELS = 32
# The published names of parts, and diffusers'.
LEVEL = re.compile(r"(encoder|decoder)\.(?:down|up)\.(\d+)\.(block\.\d+|downsample|upsample)\.(.+)")
LEVELS = {"encoder": "down_blocks", "decoder": "up_blocks"}
SAMPLERS = {"downsample": "downsamplers.0", "upsample": "upsamplers.0"}
MIDDLE = re.compile(r"(encoder|decoder)\.mid\.(block_1|attn_1|block_2)\.(.+)")
IN_MIDDLE = {"block_1": "resnets.0", "attn_1": "attentions.0", "block_2": "resnets.1"}
IN_ATTENTION = {"q": "to_q", "k": "to_k", "v": "to_v"}


@dataclass(frozen=True, slots=True)
class HunyuanVaeConfig:
    """Sizes of one such autoencoder: the encoder's channels, level by level, and those of latents."""

    widths: tuple[int, ...]
    latent_channels: int


def read_hunyuan_vae_config(shapes: Mapping[str, Shape]) -> HunyuanVaeConfig:
    """The sizes that *shapes* (published names, no prefix) show. Raises ``KeyError`` for missing tensors, ``UnknownModelError`` for others
    of the kind.
    """
    levels = count_blocks(shapes, "encoder.down.{}.")
    widths = tuple(shapes[f"encoder.down.{level}.block.0.norm1.gamma"][0] for level in range(levels))
    latent = shapes["decoder.conv_in.conv.weight"][1]
    if levels != 5 or latent != LATENT_CHANNELS:
        raise UnknownModelError(f"it has {levels} levels and latents of {latent} channels; supported: 5 levels, 32 channels")
    return HunyuanVaeConfig(widths, latent)


class Carried:
    """A layer that keeps what it needs of earlier frames between calls, from :meth:`begin` on; it begins anew where it holds nothing."""

    before: torch.Tensor | None = None  # the last frames that it saw
    carries = False

    def begin(self, carries: bool) -> None:
        """Begin a video. With *carries* frames follow in further calls."""
        self.before, self.carries = None, carries


class CarriedConvolution(Carried):
    """For convolutions of Hunyuan's over frames and pictures that see no later frame."""

    conv: Any
    pad_mode: str
    time_causal_padding: Any  # left, right, above, below, before, after

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """B x channels x frames x height x width; what lies outside repeats the edge."""
        lead = self.time_causal_padding[4]
        if not lead:
            return self.conv(hidden_states)
        sides = self.time_causal_padding[:4]
        padded = F.pad(hidden_states, (*sides, lead if self.before is None else 0, 0), mode=self.pad_mode)
        if self.before is not None:
            padded = torch.cat((self.before, padded), dim=2)
        if self.carries:
            self.before = padded[:, :, -lead:].clone()
        return self.conv(padded)


class Convolution(CarriedConvolution, HunyuanVideo15CausalConv3d):
    """That of HunyuanVideo 1.5."""


class CarriedSampling(Carried):
    """Up- or downsampling whose first frame stands alone."""

    conv: Any

    def _is_first(self) -> bool:
        return self.conv.before is None


class CarriedDownsample(CarriedSampling, HunyuanVideo15Downsample):
    """Half as many rows and columns; in some levels also half as many frames, of which the first stands alone."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """B x channels x frames x height x width; a first call may hold one frame."""
        if self._is_first() or not self.add_temporal_downsample:
            return super().forward(x) if x.shape[2] > 1 or not self.add_temporal_downsample else self._alone(x)
        sampled = self._dcae_downsample_rearrange(self.conv(x), r1=2)
        return sampled + self._means(self._dcae_downsample_rearrange(x, r1=2), sampled.shape[1])

    def _alone(self, x: torch.Tensor) -> torch.Tensor:
        sampled = self._dcae_downsample_rearrange(self.conv(x), r1=1)
        return torch.cat((sampled, sampled), dim=1) + self._means(self._dcae_downsample_rearrange(x, r1=1), 2 * sampled.shape[1])

    @staticmethod
    def _means(x: torch.Tensor, channels: int) -> torch.Tensor:
        """*x* with *channels* channels, each the mean of several."""
        return x.unflatten(1, (channels, -1)).mean(dim=2)


class CarriedUpsample(CarriedSampling, HunyuanVideo15Upsample):
    """Twice as many rows and columns; in some levels also twice as many frames, but for the first."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """B x channels x frames x height x width."""
        if not self.add_temporal_upsample:
            return super().forward(x)
        first = self._is_first()
        widened = self.conv(x)
        parts = []
        if first:
            alone = self._dcae_upsample_rearrange(widened[:, :, :1], r1=1)
            shortcut = self._dcae_upsample_rearrange(x[:, :, :1].repeat_interleave(self.repeats // 2, dim=1), r1=1)
            parts.append(alone[:, : alone.shape[1] // 2] + shortcut)
            widened, x = widened[:, :, 1:], x[:, :, 1:]
        if x.shape[2]:
            shortcut = self._dcae_upsample_rearrange(x.repeat_interleave(self.repeats, dim=1), r1=2)
            parts.append(self._dcae_upsample_rearrange(widened, r1=2) + shortcut)
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=2)


class WholeAttention(HunyuanVideo15AttnBlock):
    """Attention of all positions of all frames to each other, as in ComfyUI."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """B x C x frames x height x width."""
        normalised = self.norm(x)
        attended = vae_attention()(self.to_q(normalised), self.to_k(normalised), self.to_v(normalised))
        return x + self.proj_out(attended)


SWAPPED: dict[type, type] = {
    HunyuanVideo15CausalConv3d: Convolution,
    HunyuanVideo15Downsample: CarriedDownsample,
    HunyuanVideo15Upsample: CarriedUpsample,
    HunyuanVideo15AttnBlock: WholeAttention,
}


class HunyuanAutoencoder(torch.nn.Module):
    """Turns videos (B x 3 x frames x height x width, -1 to 1) into latents (B x 32 x frames x height x width) and back.

    Four frames make a latent one, but for the first, which stands alone; sides are divided by sixteen. Parameters are on the meta device
    until :func:`load_hunyuan_vae`; ``weight_names`` are the published ones. What layers keep of earlier frames is freed after each video.
    """

    weight_names: WeightNames

    def __init__(self, config: HunyuanVaeConfig) -> None:
        super().__init__()
        self.config = config
        with torch.device("meta"):
            built = AutoencoderKLHunyuanVideo15(latent_channels=config.latent_channels, block_out_channels=config.widths)
        self.encoder: Any = built.encoder
        self.decoder: Any = built.decoder
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
        means = whole.unflatten(1, (2 * self.config.latent_channels, -1)).mean(dim=2)
        moments = self.encoder.conv_out(self.encoder.conv_act(self.encoder.norm_out(whole))) + means
        return moments.chunk(2, dim=1)[0]

    def decode(self, z: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        """The video of a latent."""
        whole = self.decoder.mid_block(self.decoder.conv_in(z) + z.repeat_interleave(self.decoder.repeat, dim=1))

        def up(frames: torch.Tensor) -> torch.Tensor:
            for block in self.decoder.up_blocks:
                frames = block(frames)
            return self.decoder.conv_out(self.decoder.conv_act(self.decoder.norm_out(frames)))

        return in_turn([*self.decoder.up_blocks, self.decoder.conv_out], up, whole.split(FRAMES_WRITTEN, dim=2))


def in_turn(layers: Iterable[torch.nn.Module], run: Any, parts: Iterable[torch.Tensor]) -> torch.Tensor:
    """The results of *run* for *parts*, one behind the other, with what *layers* keep of each for the next, which they then forget."""
    carried = [one for layer in layers for one in layer.modules() if isinstance(one, Carried)]
    listed = list(parts)
    try:
        for one in carried:
            one.begin(len(listed) > 1)
        results = [run(part) for part in listed]
    finally:
        for one in carried:
            one.begin(False)
    return results[0] if len(results) == 1 else torch.cat(results, dim=2)


def in_parts(video: torch.Tensor) -> list[torch.Tensor]:
    """*video* (B x channels x frames x height x width): its first frame, then as many at a time as are read at once; those that fill no
    latent frame at the end are left out.
    """
    later = (video.shape[2] - 1) // FRAMES_PER_LATENT * FRAMES_PER_LATENT
    return [video[:, :, :1], *(video[:, :, 1 : 1 + later].split(FRAMES_READ, dim=2) if later else ())]


def load_hunyuan_vae(model: HunyuanAutoencoder, source: WeightSource, dtype: torch.dtype) -> None:
    """Give *model* its weights from *source* (no prefix; published names) in *dtype*. Raises ``ModelFileError``."""
    part = plain_weights(source)
    with naming_file(source.name, WHAT):
        plan = plan_hunyuan_vae(part.shapes())
    model.weight_names = load_parameters(model, part, plan, dtype, WHAT).weight_names()


def plan_hunyuan_vae(shapes: Mapping[str, Shape]) -> ConversionPlan:
    """Which tensor of the file becomes which parameter; nothing is copied."""
    return plan_conversion(shapes, lambda tensors: {_diffusers_name(name): value for name, value in tensors.items()})


def _diffusers_name(name: str) -> str:
    if found := MIDDLE.match(name):
        half, part, rest = found.groups()
        first, _, leaf = rest.partition(".")
        return f"{half}.mid_block.{IN_MIDDLE[part]}.{IN_ATTENTION.get(first, first)}.{leaf}"
    if found := LEVEL.match(name):
        half, level, part, rest = found.groups()
        return f"{half}.{LEVELS[half]}.{level}.{SAMPLERS.get(part, part.replace('block.', 'resnets.'))}.{rest}"
    return name


def decode_memory_bytes(shape: Shape, dtype_bytes: int) -> float:
    """Bytes of working memory to decode latents of *shape*, B x C x frames x height x width; measured by ComfyUI."""
    return 3600 * 4 * shape[-2] * shape[-1] * SIDE**2 * dtype_bytes


def encode_memory_bytes(shape: Shape, dtype_bytes: int) -> float:
    """Bytes of working memory to encode videos of *shape*, B x channels x frames x height x width; measured by ComfyUI."""
    return 1400 * 9 * shape[-2] * shape[-1] * dtype_bytes
