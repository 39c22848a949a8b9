"""The layers of LTX's video autoencoders under their published names, of diffusers' parts.

Shapes: batch x channels x frames x height x width. *causal*: what lies before the first frame repeats it, and nothing lies after the last;
otherwise both ends repeat theirs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl_ltx2 import (
    LTX2VideoCausalConv3d,
    LTX2VideoDownsampler3d,
    LTX2VideoResnetBlock3d,
    LTX2VideoUpsampler3d,
    PerChannelRMSNorm,
)
from diffusers.models.embeddings import PixArtAlphaCombinedTimestepSizeEmbeddings

from comfy.families.model_errors import UnknownModelError

Block = tuple[str, Mapping[str, Any]]
KERNEL = 3
# Strides of blocks that halve frames, sides or both; and of those that double them.
STRIDES = {"compress_time": (2, 1, 1), "compress_space": (1, 2, 2), "compress_all": (2, 2, 2)}


def blocks_of(settings: Sequence[Any]) -> Iterator[Block]:
    """Name and settings of each block of a published list, which writes a number alone for that of its layers."""
    for name, given in settings:
        yield name, given if isinstance(given, Mapping) else {"num_layers": given}


class NamedNorm(torch.nn.Module):
    """A norm over channels under the name that files give it."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = torch.nn.LayerNorm(channels, eps=1e-6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Channels last."""
        return self.norm(x)


def residual_block(channels: int, out_channels: int, padding: str, noisy: bool = False, timed: bool = False) -> torch.nn.Module:
    """A residual block. *noisy*: noise is added inside; *timed*: it is changed by the time."""
    block: Any = LTX2VideoResnetBlock3d(
        channels, out_channels, inject_noise=noisy, timestep_conditioning=timed, spatial_padding_mode=padding
    )
    if block.norm3 is not None:
        block.norm3 = NamedNorm(channels)
    return block


class Stage(torch.nn.Module):
    """Residual blocks of one width, ``res_blocks``; *timed* ones share what a time says."""

    def __init__(self, channels: int, layers: int, padding: str, noisy: bool = False, timed: bool = False) -> None:
        super().__init__()
        self.time_embedder = PixArtAlphaCombinedTimestepSizeEmbeddings(channels * 4, 0) if timed else None
        self.res_blocks = torch.nn.ModuleList(residual_block(channels, channels, padding, noisy, timed) for _ in range(layers))

    def forward(self, x: torch.Tensor, causal: bool = True, time: torch.Tensor | None = None) -> torch.Tensor:
        """*time*: one for all, in thousandths; for timed ones."""
        said = None if self.time_embedder is None or time is None else embedded_time(self.time_embedder, time, x)
        for block in self.res_blocks:
            x = block(x, said, causal=causal)
        return x


def embedded_time(embedder: torch.nn.Module, time: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """What *time* says, as 1 x values x 1 x 1 x 1."""
    return embedder(time.flatten(), resolution=None, aspect_ratio=None, batch_size=1, hidden_dtype=like.dtype).view(1, -1, 1, 1, 1)


def down_block(name: str, settings: Mapping[str, Any], channels: int, padding: str) -> tuple[torch.nn.Module, int]:
    """The encoder's block *name* for *channels*, and how many it gives. Raises ``UnknownModelError`` for others."""
    if name == "res_x":
        return Stage(channels, settings["num_layers"], padding), channels
    wider = settings.get("multiplier", 2) * channels
    if name == "res_x_y":
        return residual_block(channels, wider, padding), wider
    stride = STRIDES.get(name.removesuffix("_res").removesuffix("_x_y"))
    if stride is None:
        raise UnknownModelError(f"its encoder has a block {name!r}, which is not supported")
    if name.endswith("_res"):
        return LTX2VideoDownsampler3d(channels, wider, stride, padding), wider
    out = wider if name.endswith("_x_y") else channels
    return LTX2VideoCausalConv3d(channels, out, KERNEL, stride, spatial_padding_mode=padding), out


def up_block(name: str, settings: Mapping[str, Any], channels: int, padding: str, timed: bool) -> tuple[torch.nn.Module, int]:
    """The decoder's block *name* for *channels*, and how many it gives. Raises ``UnknownModelError`` for others."""
    noisy = settings.get("inject_noise", False)
    if name == "res_x":
        return Stage(channels, settings["num_layers"], padding, noisy, timed), channels
    if name == "res_x_y":
        out = settings.get("out_channels", channels // settings.get("multiplier", 2))
        return residual_block(channels, out, padding, noisy), out
    if name not in STRIDES:
        raise UnknownModelError(f"its decoder has a block {name!r}, which is not supported")
    less = settings.get("multiplier", 1)
    residual = settings.get("residual", False) and name == "compress_all"
    return LTX2VideoUpsampler3d(channels, None, STRIDES[name], residual, less, padding), channels // less


class Half(torch.nn.Module):
    """What both halves share: their first and last layers, under the published names."""

    def __init__(self, channels: int, width: int, padding: str) -> None:
        super().__init__()
        self.conv_in = LTX2VideoCausalConv3d(channels, width, KERNEL, spatial_padding_mode=padding)
        self.conv_norm_out = PerChannelRMSNorm()
        self.conv_act = torch.nn.SiLU()


class Encoder(Half):
    """Videos in patches to latents and, as one more channel, how sure it is of them."""

    def __init__(self, channels: int, latent_channels: int, blocks: Sequence[Any], width: int, extra: int, padding: str) -> None:
        super().__init__(channels, width, padding)
        self.down_blocks = torch.nn.ModuleList()
        for name, settings in blocks_of(blocks):
            block, width = down_block(name, settings, width, padding)
            self.down_blocks.append(block)
        self.conv_out = LTX2VideoCausalConv3d(width, latent_channels + extra, KERNEL, spatial_padding_mode=padding)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """All channels of the last layer."""
        x = self.conv_in(x)
        for block in self.down_blocks:
            x = block(x)
        return self.conv_out(self.conv_act(self.conv_norm_out(x)))


class Decoder(Half):
    """Latents to videos in patches. *timed*: it is told how much noise there still is."""

    def __init__(
        self, latent_channels: int, channels: int, blocks: Sequence[Any], width: int, causal: bool, timed: bool, padding: str
    ) -> None:
        last_first = list(blocks_of(blocks))
        for name, settings in last_first:
            width = widest_before(name, settings, width)
        super().__init__(latent_channels, width, padding)
        self.causal = causal
        self.up_blocks = torch.nn.ModuleList()
        for name, settings in reversed(last_first):
            block, width = up_block(name, settings, width, padding, timed)
            self.up_blocks.append(block)
        self.conv_out = LTX2VideoCausalConv3d(width, channels, KERNEL, spatial_padding_mode=padding)
        self.last_time_embedder = self.last_scale_shift_table = self.timestep_scale_multiplier = None
        if timed:
            self.timestep_scale_multiplier = torch.nn.Parameter(torch.tensor(1000.0))
            self.last_time_embedder = PixArtAlphaCombinedTimestepSizeEmbeddings(width * 2, 0)
            self.last_scale_shift_table = torch.nn.Parameter(torch.empty(2, width))

    def forward(self, x: torch.Tensor, time: float | None = None) -> torch.Tensor:
        """*time*: how much noise there still is, for timed ones."""
        scale = self.timestep_scale_multiplier
        said = None if scale is None else time * scale.to(x)
        x = self.conv_in(x, causal=self.causal)
        for block in self.up_blocks:
            x = block(x, causal=self.causal, time=said) if isinstance(block, Stage) else block(x, causal=self.causal)
        x = self.conv_norm_out(x)
        if said is not None and self.last_time_embedder is not None and self.last_scale_shift_table is not None:
            values = embedded_time(self.last_time_embedder, said, x).unflatten(1, (2, -1))
            shift, more = (values + self.last_scale_shift_table.to(x)[None, ..., None, None, None]).unbind(dim=1)
            x = x * (1 + more) + shift
        return self.conv_out(self.conv_act(x), causal=self.causal)


def widest_before(name: str, settings: Mapping[str, Any], width: int) -> int:
    """The channels before the decoder's block *name*, if there are *width* after it."""
    if name == "res_x_y":
        return settings.get("in_channels", width * settings.get("multiplier", 2))
    return width * settings.get("multiplier", 1) if name in STRIDES else width
