"""The layers of LTX's video autoencoders under their published names: diffusers', which see a video piece by piece.

Shapes: batch x channels x frames x height x width. *causal*: what lies before the first frame repeats it, and nothing lies after the last;
otherwise both ends repeat theirs. A layer keeps in a :class:`Stream` what it needs of earlier pieces, so that pieces give what the whole
gives; of a layer that looks ahead the last frames come with the next piece.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl_ltx2 import (
    LTX2VideoCausalConv3d,
    LTX2VideoDownsampler3d,
    LTX2VideoResnetBlock3d,
    LTX2VideoUpsampler3d,
)
from diffusers.models.embeddings import PixArtAlphaCombinedTimestepSizeEmbeddings

from comfy.families.model_errors import UnknownModelError
from comfy.units import MIB

Block = tuple[str, Mapping[str, Any]]
Piece = tuple[torch.Tensor, bool]  # frames, and whether they are the last ones
Layer = Callable[[torch.Tensor], torch.Tensor]
KERNEL = 3
PIECE_BYTES = 32 * MIB  # the most that frames between two layers take, unless one frame takes more
# Strides of blocks that halve frames, sides or both; and of those that double them.
STRIDES = {"compress_time": (2, 1, 1), "compress_space": (1, 2, 2), "compress_all": (2, 2, 2)}


class Stream:
    """One video on its way through layers. ``last``: the piece that is in a layer now is the last one."""

    def __init__(self) -> None:
        self.last = False
        self._kept: dict[tuple[int, str], torch.Tensor] = {}

    def begins(self, owner: object, name: str) -> bool:
        """Whether *owner* has kept nothing under *name* yet."""
        return (id(owner), name) not in self._kept

    def joined(self, owner: object, name: str, x: torch.Tensor) -> torch.Tensor:
        """What *owner* kept under *name*, and *x* after it."""
        before = self._kept.get((id(owner), name))
        return x if before is None or not before.shape[2] else torch.cat((before, x), dim=2)

    def keep(self, owner: object, name: str, x: torch.Tensor) -> None:
        """Keep *x*, and nothing that it is a part of; nothing at the end."""
        self._kept[id(owner), name] = (x[:, :, :0] if self.last else x).clone()

    def through(self, layer: Layer, pieces: Iterable[Piece], growth: int = 1) -> Iterator[Piece]:
        """What *layer*, which gives up to *growth* times what it is given, makes of *pieces*, in pieces of limited size.

        Nothing is held here while later layers are at work, but for what is not yet through.
        """
        for piece, last in pieces:
            frame_bytes = max(1, piece[:, :, :1].numel() * piece.element_size()) * growth
            parts = list(reversed(piece.split(max(1, PIECE_BYTES // frame_bytes), dim=2)))
            del piece
            while parts:
                self.last = last and len(parts) == 1
                made = [layer(parts.pop())]
                if made[0].shape[2] or (last and not parts):
                    yield made.pop(), last and not parts


class Convolution(LTX2VideoCausalConv3d):
    """A convolution over frames and pictures."""

    def forward(self, hidden_states: torch.Tensor, causal: bool, stream: Stream) -> torch.Tensor:  # type: ignore[override]
        """As many frames as it can give by now."""
        size, stride = self.kernel_size[0], self.conv.stride[0]
        x = hidden_states
        if not x.shape[2] and not stream.last:
            return self._none(x)
        if stream.begins(self, "frames"):
            x = torch.cat((x[:, :, :1].expand(-1, -1, size - 1 if causal else size // 2, -1, -1), x), dim=2)
        x = stream.joined(self, "frames", x)
        if stream.last and not causal:
            x = torch.cat((x, x[:, :, -1:].expand(-1, -1, size // 2, -1, -1)), dim=2)
        count = max(0, (x.shape[2] - size) // stride + 1)
        stream.keep(self, "frames", x[:, :, count * stride :])
        return self.conv(x) if count else self._none(x)

    def _none(self, x: torch.Tensor) -> torch.Tensor:
        sides = ((length + 2 * pad - kernel) // step + 1 for length, pad, kernel, step in self._sides(x))
        return x.new_empty((len(x), self.conv.out_channels, 0, *sides))

    def _sides(self, x: torch.Tensor) -> Iterator[tuple[int, ...]]:
        padding: Any = self.conv.padding
        return zip(x.shape[3:], padding[1:], self.conv.kernel_size[1:], self.conv.stride[1:])


class NamedNorm(torch.nn.Module):
    """A norm over channels under the name that files give it."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = torch.nn.LayerNorm(channels, eps=1e-6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Channels last."""
        return self.norm(x)


class ResidualBlock(LTX2VideoResnetBlock3d):
    """Two convolutions beside a way past them; noise may be added inside, and the time may change it."""

    def forward(self, inputs: torch.Tensor, temb: torch.Tensor | None, causal: bool, stream: Stream) -> torch.Tensor:  # type: ignore[override]
        """*temb*: what the time says, for blocks that it changes."""
        shifts = (None, None, None, None)
        if self.scale_shift_table is not None and temb is not None:
            shifts = (temb.unflatten(1, (4, -1)) + self.scale_shift_table.to(inputs)[None, ..., None, None, None]).unbind(dim=1)
        x = self._step(self.norm1, self.conv1, self.per_channel_scale1, inputs, shifts[:2], causal, stream)
        x = self._step(self.norm2, self.conv2, self.per_channel_scale2, x, shifts[2:], causal, stream)
        past = stream.joined(self, "past", inputs)
        stream.keep(self, "past", past[:, :, x.shape[2] :])
        past = past[:, :, : x.shape[2]]
        if self.norm3 is not None:
            past = self.norm3(past.movedim(1, -1)).movedim(-1, 1)
        return x + (past if self.conv_shortcut is None else self.conv_shortcut(past) if past.shape[2] else x)

    def _step(self, norm: Any, conv: Any, noise: Any, x: torch.Tensor, shifts: Any, causal: bool, stream: Stream) -> torch.Tensor:
        x = norm(x)
        if shifts[0] is not None:
            x = x * (1 + shifts[1]) + shifts[0]
        x = conv(self.nonlinearity(x), causal, stream)
        if noise is None or not x.shape[2]:
            return x
        drawn = torch.randn(x.shape[-2:], device=x.device, dtype=x.dtype)[None]
        return x + (drawn * noise.to(x))[None, :, None]


class Downsampler(LTX2VideoDownsampler3d):
    """Fewer frames, rows or columns, each with the channels of several."""

    def forward(self, hidden_states: torch.Tensor, causal: bool, stream: Stream) -> torch.Tensor:  # type: ignore[override]
        """Frames beyond the last whole group wait for the next piece."""
        x, frames = hidden_states, self.stride[0]
        if stream.begins(self, "past"):
            x = torch.cat((x[:, :, : frames - 1], x), dim=2)
        made = stream.joined(self, "made", self.conv(x, causal, stream))
        past = stream.joined(self, "past", x)
        whole = made.shape[2] // frames * frames
        stream.keep(self, "made", made[:, :, whole:])
        stream.keep(self, "past", past[:, :, whole:])
        grouped = self._grouped(past[:, :, :whole]).unflatten(1, (-1, self.group_size)).mean(dim=2)
        return self._grouped(made[:, :, :whole]) + grouped

    def _grouped(self, x: torch.Tensor) -> torch.Tensor:
        """*x* with the cells of a group as channels."""
        batch, channels, *lengths = x.shape
        cells = [size for length, step in zip(lengths, self.stride) for size in (length // step, step)]
        return x.reshape(batch, channels, *cells).permute(0, 1, 3, 5, 7, 2, 4, 6).flatten(1, 4)


class Upsampler(LTX2VideoUpsampler3d):
    """More frames, rows or columns, of the channels of each; of the first frame's the last one counts alone."""

    @property
    def growth(self) -> int:
        """How many numbers it makes of one, at most."""
        return self.stride[0] * self.stride[1] * self.stride[2]

    def forward(self, hidden_states: torch.Tensor, causal: bool, stream: Stream) -> torch.Tensor:  # type: ignore[override]
        """As many frames as it can give by now."""
        made = self.conv(hidden_states, causal, stream)
        count = made.shape[2]
        x = self._spread(made)
        if self.residual:
            past = stream.joined(self, "past", hidden_states)
            stream.keep(self, "past", past[:, :, count:])
            repeats = self.growth // self.upscale_factor
            x = x + self._spread(past[:, :, :count]).repeat(1, repeats, 1, 1, 1)
        if count and stream.begins(self, "begun"):
            stream.keep(self, "begun", x[:, :, :0])
            x = x[:, :, self.stride[0] - 1 :]
        return x

    def _spread(self, x: torch.Tensor) -> torch.Tensor:
        """*x* with channels as further frames, rows and columns."""
        batch, channels, *lengths = x.shape
        rest = channels // self.growth
        cells = x.reshape(batch, rest, *self.stride, *lengths).permute(0, 1, 5, 2, 6, 3, 7, 4)
        return cells.reshape(batch, rest, *(length * step for length, step in zip(lengths, self.stride)))


OWN_CLASSES: dict[type, type] = {
    LTX2VideoCausalConv3d: Convolution,
    LTX2VideoResnetBlock3d: ResidualBlock,
    LTX2VideoDownsampler3d: Downsampler,
    LTX2VideoUpsampler3d: Upsampler,
}


def blocks_of(settings: Sequence[Any]) -> Iterator[Block]:
    """Name and settings of each block of a published list, which writes a number alone for that of its layers."""
    for name, given in settings:
        yield name, given if isinstance(given, Mapping) else {"num_layers": given}


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

    def layers(self, causal: bool, stream: Stream, time: torch.Tensor | None, dtype: torch.dtype) -> Iterator[Layer]:
        """Its blocks as functions of frames. *time*: one for all, in thousandths; for timed ones."""
        said = None if self.time_embedder is None or time is None else embedded_time(self.time_embedder, time, dtype)
        for block in self.res_blocks:
            yield partial(block, temb=said, causal=causal, stream=stream)


def embedded_time(embedder: torch.nn.Module, time: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """What *time* says, as 1 x values x 1 x 1 x 1."""
    return embedder(time.flatten(), resolution=None, aspect_ratio=None, batch_size=1, hidden_dtype=dtype).view(1, -1, 1, 1, 1)


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
