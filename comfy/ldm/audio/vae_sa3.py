"""Stable Audio 3's autoencoder in ComfyUI's tree and published weight names: blocks of attention that shorten and lengthen what they hear.

Shapes: B sounds, C channels, T samples, L places of a latent, N tokens, W width of a token, D values of a head.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own convention

import comfy.ldm.audio.blocks
import comfy.ops
from comfy.audio.normed import NormedConvolution
from comfy.ldm.audio.blocks import DynamicTanh, FeedForward, Options, RotaryEmbedding

__all__ = [
    "Attention",
    "DynamicTanh",
    "FeedForward",
    "PatchedPretransform",
    "RotaryEmbedding",
    "SA3AudioVAE",
    "SAMEDecoder",
    "SAMEEncoder",
    "SoftNormBottleneck",
    "TransformerBlock",
    "TransformerResamplingBlock",
]

HEAD = 64
STRIDE, PATCH = 16, 256  # places of sound per place of a latent; samples per place of sound
SIDES, MULTIPLE, LATENT = 2, 6, 256
WIDER = 3  # the feed-forward layer, than a token
IN_BLOCK = 6  # windows of queries that are computed together, with the keys of a window on either side
QUIET = 1e-3  # of a latent's own deviation, added as noise before it is decoded


def _sine(x: torch.Tensor) -> torch.Tensor:
    return torch.sin(math.pi * x)


class Attention(comfy.ldm.audio.blocks.Attention):
    """Of tokens to themselves; *window*: to as many before and after each, else to all."""

    def __init__(self, dim: int, dim_heads: int = HEAD, window: int | None = None, **kept: Any) -> None:
        super().__init__(dim, dim_heads, qk_norm="dyt", differential=True, **kept)
        self.window = window

    def compute(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, options: Options, **masked: Any) -> torch.Tensor:
        """B x heads x N x D each: B x N x W."""
        if self.window is None:
            return super().compute(query, key, value, options)
        count, near, block = query.shape[2], self.window, IN_BLOCK * self.window
        blocks = -(-count // block)
        rest = blocks * block - count
        queries = F.pad(query, (0, 0, 0, rest)).unflatten(2, (blocks, block)).transpose(1, 2).flatten(0, 1)
        keys, values = (_overlapping(part, block, near, rest) for part in (key, value))
        mask = _near(blocks, block, near, count, query.device).repeat(len(query), 1, 1)
        out = super().compute(queries, keys, values, options, mask=mask)
        return out.unflatten(0, (len(query), blocks)).flatten(1, 2)[:, :count]


def _overlapping(tokens: torch.Tensor, block: int, near: int, rest: int) -> torch.Tensor:
    """*tokens* (B x heads x N x D) in blocks from *near* before those of queries to as many after, (B blocks) x heads x … x D."""
    parts = F.pad(tokens, (0, 0, near, near + rest)).unfold(2, block + 2 * near, block)
    return parts.permute(0, 2, 1, 4, 3).flatten(0, 1)


def _near(blocks: int, block: int, near: int, count: int, device: torch.device) -> torch.Tensor:
    """Which key of its block a query sees, blocks x queries x keys: none farther than *near*, none before the first or after the last of
    *count*, but queries behind the last, which nobody asks for, see each other.
    """
    first = torch.arange(blocks, device=device)[:, None, None] * block
    query = first + torch.arange(block, device=device)[:, None]
    key = first + torch.arange(-near, block + near, device=device)
    return ((query - key).abs() <= near) & (key >= 0) & ((key < count) | (query >= count))


class TransformerBlock(torch.nn.Module):
    """Attention and a feed-forward layer; *sinusoidal*: which is gated by sines."""

    def __init__(self, dim: int, window: int | None = None, sinusoidal: bool = False, operations: Any = None, **kept: Any) -> None:
        super().__init__()
        self.pre_norm, self.ff_norm = DynamicTanh(dim, **kept), DynamicTanh(dim, **kept)
        self.self_attn = Attention(dim, window=window, operations=operations, **kept)
        self.ff = FeedForward(dim, WIDER, _sine if sinusoidal else F.silu, operations=operations, **kept)
        self.rope = RotaryEmbedding(HEAD // 2, **kept)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """B x N x W to B x N x W."""
        x = x + self.self_attn(self.pre_norm(x), None, self.rope(x.shape[1], x.device))
        return x + self.ff(self.ff_norm(x))


class TransformerResamplingBlock(torch.nn.Module):
    """Makes one place of so many, or so many of one: what is to be made stands as one learned token, repeated, behind each group that is
    given, and blocks of attention fill it in.

    Tokens see those near them (*windowed*), or those of the chunk that they are in, of *chunk_size* given or made places; *shifted*: the
    second half of the blocks has chunks that begin in the middle of those before.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        decodes: bool,
        depth: int,
        windowed: bool,
        chunk_size: int,
        shifted: bool,
        sinusoidal_blocks: int = 0,
        kernel: int = 1,
        operations: Any = None,
        **kept: Any,
    ) -> None:
        super().__init__()
        self.decodes, self.windowed, self.chunk_size, self.shifted = decodes, windowed, chunk_size, shifted
        self.given, self.made = (1, STRIDE) if decodes else (STRIDE, 1)
        width = in_channels if decodes else out_channels
        self.mapping = NormedConvolution(in_channels, out_channels, kernel, padding=kernel // 2, **kept)
        self.mapping.part()
        self.new_tokens = torch.nn.Parameter(torch.empty(1, 1, width, **kept))
        window = STRIDE + 1 if windowed else None
        self.transformers = torch.nn.ModuleList(
            TransformerBlock(width, window, depth - number < sinusoidal_blocks, operations, **kept) for number in range(depth)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """B x in x places to B x out x places, of which there are then as many times fewer or more; they are filled up to whole groups, or
        chunks.
        """
        group = self.given if self.windowed else self.chunk_size * self.given // STRIDE
        x = F.pad(x, (0, -x.shape[-1] % group))
        if not self.decodes:
            x = self.mapping(x)
        batch, width = x.shape[:2]
        groups = x.transpose(1, 2).reshape(-1, self.given, width)
        new = comfy.ops.cast_to_input(self.new_tokens, x).expand(len(groups), self.made, -1)
        tokens = self._attended(torch.cat((groups, new), dim=1).reshape(batch, -1, width))
        made = tokens.reshape(-1, STRIDE + 1, width)[:, -self.made :].reshape(batch, -1, width).transpose(1, 2)
        return self.mapping(made) if self.decodes else made

    def _attended(self, x: torch.Tensor) -> torch.Tensor:
        layers = list(self.transformers)
        if self.windowed:
            return _through(layers, x)
        chunk = self.chunk_size + self.chunk_size // STRIDE
        half, beside = (len(layers) // 2, chunk // 2) if self.shifted else (len(layers), 0)
        x = _in_chunks(layers[:half], x, chunk)
        if not beside:
            return x
        x = torch.cat((x[:, :beside], x, x[:, -beside:]), dim=1)
        return _in_chunks(layers[half:], x, chunk)[:, beside:-beside]


def _through(layers: list[torch.nn.Module], x: torch.Tensor) -> torch.Tensor:
    for layer in layers:
        x = layer(x)
    return x


def _in_chunks(layers: list[torch.nn.Module], x: torch.Tensor, chunk: int) -> torch.Tensor:
    return _through(layers, x.reshape(-1, chunk, x.shape[2])).reshape(x.shape)


class _Turned(torch.nn.Module):
    """Changes channels and places."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """B x N x W to B x W x N."""
        return x.transpose(-2, -1)


class SAMEEncoder(torch.nn.Module):
    """Places of sound to places of a latent."""

    def __init__(self, channels: int, operations: Any = None, **settings: Any) -> None:
        super().__init__()
        width, kept = channels * MULTIPLE, {name: settings[name] for name in ("dtype", "device")}
        shorter = TransformerResamplingBlock(SIDES * PATCH, width, False, operations=operations, **settings)
        self.layers = torch.nn.Sequential(shorter, _Turned(), operations.Linear(width, LATENT, **kept), _Turned())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """B x 512 x places to B x 256 x L."""
        return self.layers(x)


class SAMEDecoder(torch.nn.Module):
    """Places of a latent to places of sound."""

    def __init__(self, channels: int, operations: Any = None, **settings: Any) -> None:
        super().__init__()
        width, kept = channels * MULTIPLE, {name: settings[name] for name in ("dtype", "device")}
        longer = TransformerResamplingBlock(width, SIDES * PATCH, True, operations=operations, **settings)
        self.layers = torch.nn.Sequential(_Turned(), operations.Linear(LATENT, width, **kept), _Turned(), longer)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """B x 256 x L to B x 512 x places."""
        return self.layers(x)


class SoftNormBottleneck(torch.nn.Module):
    """Scales latents; decoding adds noise to them, by torch's own generator as in ComfyUI."""

    def __init__(self, dim: int = LATENT, **kept: Any) -> None:
        super().__init__()
        self.scaling_factor, self.bias = (torch.nn.Parameter(torch.empty(1, dim, 1, **kept)) for _ in range(2))
        self.running_std = torch.nn.Parameter(torch.empty(1, **kept))

    def encode(self, x: torch.Tensor) -> torch.Tensor:
        """B x 256 x L to the same."""
        scale, shift, deviation = (comfy.ops.cast_to_input(value, x) for value in (self.scaling_factor, self.bias, self.running_std))
        return (x * scale + shift) / deviation

    def decode(self, x: torch.Tensor) -> torch.Tensor:
        """B x 256 x L to the same."""
        deviation = comfy.ops.cast_to_input(self.running_std, x)
        return x * deviation + torch.randn_like(x) * deviation * QUIET


class PatchedPretransform(torch.nn.Module):
    """Samples as places: *patch_size* samples of each side, one behind the other, are the channels of one."""

    def __init__(self, channels: int = SIDES, patch_size: int = PATCH) -> None:
        super().__init__()
        self.channels, self.patch_size = channels, patch_size

    def encode(self, x: torch.Tensor) -> torch.Tensor:
        """B x C x T to B x (C patch) x places; the last is filled up with silence."""
        x = F.pad(x, (0, -x.shape[-1] % self.patch_size))
        return x.unflatten(-1, (-1, self.patch_size)).transpose(-2, -1).flatten(1, 2)

    def decode(self, x: torch.Tensor) -> torch.Tensor:
        """The other way."""
        return x.unflatten(1, (-1, self.patch_size)).transpose(-2, -1).flatten(2)


class SA3AudioVAE(torch.nn.Module):
    """Turns stereo sounds (B x 2 x T, -1 to 1) into latents (B x 256 x L, a place for 4096 samples) and back. A sound is filled up to whole
    places with silence.
    """

    def __init__(
        self,
        channels: int = 256,
        transformer_depths: int = 12,
        sinusoidal_blocks: int = 8,
        sliding_window: Any = None,
        decoder_conv_mapping: bool = False,
        chunk_size: int = 128,
        chunk_midpoint_shift: bool = False,
        dtype: torch.dtype | None = None,
        device: Any = None,
        operations: Any = None,
    ) -> None:
        super().__init__()
        if sliding_window is not None and list(sliding_window) != [1, 1]:
            raise ValueError(f"windows of {list(sliding_window)} places are not supported; supported: one before and one after, or None")
        windowed, made = sliding_window is not None, {"dtype": dtype, "device": device, "operations": operations or comfy.ops.manual_cast}
        both = {"depth": transformer_depths, "windowed": windowed, "chunk_size": chunk_size, "shifted": chunk_midpoint_shift, **made}
        self.pretransform = PatchedPretransform()
        self.encoder = SAMEEncoder(channels, **both)
        self.decoder = SAMEDecoder(channels, sinusoidal_blocks=sinusoidal_blocks, kernel=3 if decoder_conv_mapping else 1, **both)
        self.bottleneck = SoftNormBottleneck(dtype=dtype, device=device)
        self.eval().requires_grad_(False)

    def encode(self, x: torch.Tensor) -> torch.Tensor:
        """The latent of a sound."""
        return self.bottleneck.encode(self.encoder(self.pretransform.encode(x)))

    def decode(self, z: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        """The sound of a latent."""
        return self.pretransform.decode(self.decoder(self.bottleneck.decode(z)))
