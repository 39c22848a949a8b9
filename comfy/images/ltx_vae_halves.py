"""The halves of LTX's video autoencoders, under their published names."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl_ltx2 import LTX2VideoCausalConv3d, PerChannelRMSNorm
from diffusers.models.embeddings import PixArtAlphaCombinedTimestepSizeEmbeddings

from comfy.images.ltx_vae_layers import (
    KERNEL,
    OWN_CLASSES,
    STRIDES,
    Piece,
    ResidualBlock,
    Stage,
    Stream,
    blocks_of,
    down_block,
    embedded_time,
    up_block,
)


class Half(torch.nn.Module):
    """What both halves share: their first and last layers, and how a video goes through the others."""

    causal = True

    def __init__(self, channels: int, width: int, padding: str) -> None:
        super().__init__()
        self.conv_in: Any = LTX2VideoCausalConv3d(channels, width, KERNEL, spatial_padding_mode=padding)
        self.conv_norm_out = PerChannelRMSNorm()
        self.conv_act = torch.nn.SiLU()

    def _own_layers(self) -> None:
        """Let all layers see videos piece by piece."""
        for layer in self.modules():
            layer.__class__ = OWN_CLASSES.get(type(layer), type(layer))

    def _through(
        self, blocks: Iterable[torch.nn.Module], pieces: Iterable[Piece], stream: Stream, time: torch.Tensor | None, dtype: torch.dtype
    ) -> Iterator[Piece]:
        """What the first layer and *blocks* make of *pieces*."""
        flowing = stream.through(lambda x: self.conv_in(x, self.causal, stream), pieces)
        for block in blocks:
            if isinstance(block, Stage):
                for layer in block.layers(self.causal, stream, time, dtype):
                    flowing = stream.through(layer, flowing)
            elif isinstance(block, ResidualBlock):
                flowing = stream.through(lambda x, block=block: block(x, None, self.causal, stream), flowing)
            else:
                flowing = stream.through(lambda x, block=block: block(x, self.causal, stream), flowing)
        return flowing


class Encoder(Half):
    """Videos in patches to latents and, as further channels, how sure it is of them."""

    def __init__(self, channels: int, latent_channels: int, blocks: Sequence[Any], width: int, extra: int, padding: str) -> None:
        super().__init__(channels, width, padding)
        self.down_blocks = torch.nn.ModuleList()
        for name, settings in blocks_of(blocks):
            block, width = down_block(name, settings, width, padding)
            self.down_blocks.append(block)
        self.conv_out: Any = LTX2VideoCausalConv3d(width, latent_channels + extra, KERNEL, spatial_padding_mode=padding)
        self._own_layers()

    def forward(self, pieces: Iterable[Piece], dtype: torch.dtype) -> torch.Tensor:
        """All channels of the last layer, for the frames of *pieces* one after the other."""
        stream = Stream()
        flowing = self._through(self.down_blocks, pieces, stream, None, dtype)
        last = stream.through(lambda x: self.conv_out(self.conv_act(self.conv_norm_out(x)), self.causal, stream), flowing)
        return torch.cat([piece for piece, _ in last if piece.shape[2]], dim=2)


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
        self.conv_out: Any = LTX2VideoCausalConv3d(width, channels, KERNEL, spatial_padding_mode=padding)
        self.last_time_embedder = self.last_scale_shift_table = self.timestep_scale_multiplier = None
        if timed:
            self.timestep_scale_multiplier = torch.nn.Parameter(torch.tensor(1000.0))
            self.last_time_embedder = PixArtAlphaCombinedTimestepSizeEmbeddings(width * 2, 0)
            self.last_scale_shift_table = torch.nn.Parameter(torch.empty(2, width))
        self._own_layers()

    def forward(self, x: torch.Tensor, time: float | None = None) -> Iterator[torch.Tensor]:
        """The video of the latent *x* in pieces of some frames. *time*: how much noise there still is, for timed ones."""
        stream, scale = Stream(), self.timestep_scale_multiplier
        said = None if scale is None or time is None else time * scale.to(x)
        changes = self._changes(said, x.dtype)

        def last(piece: torch.Tensor) -> torch.Tensor:
            piece = self.conv_norm_out(piece)
            if changes is not None:
                piece = piece * (1 + changes[1]) + changes[0]
            return self.conv_out(self.conv_act(piece), self.causal, stream)

        flowing = self._through(self.up_blocks, [(x, True)], stream, said, x.dtype)
        return (piece for piece, _ in stream.through(last, flowing) if piece.shape[2])

    def _changes(self, said: torch.Tensor | None, dtype: torch.dtype) -> tuple[torch.Tensor, ...] | None:
        """What is added before the last layer and, as a share, multiplied; None without a time."""
        if said is None or self.last_time_embedder is None or self.last_scale_shift_table is None:
            return None
        values = embedded_time(self.last_time_embedder, said, dtype).unflatten(1, (2, -1))
        return (values + self.last_scale_shift_table.to(values)[None, ..., None, None, None]).unbind(dim=1)


def widest_before(name: str, settings: Mapping[str, Any], width: int) -> int:
    """The channels before the decoder's block *name*, if there are *width* after it."""
    if name == "res_x_y":
        return settings.get("in_channels", width * settings.get("multiplier", 2))
    return width * settings.get("multiplier", 1) if name in STRIDES else width
