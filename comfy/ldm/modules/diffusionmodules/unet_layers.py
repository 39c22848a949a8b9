"""The layers of Stable Diffusion's UNet: residual blocks and changes of size, in ComfyUI's tree and with its constructors.

The paths of parameters below a layer (``in_layers.2.weight``) are the published names. Node packs build, subclass, patch and walk them.
"""

from collections.abc import Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own convention

import comfy.ops
from comfy.ldm.modules.diffusionmodules.util import AlphaBlender

NORM_GROUPS = 32
Dimensions = Literal[1, 2, 3]  # length; height and width; frames, height and width
_POOLS = {1: torch.nn.AvgPool1d, 2: torch.nn.AvgPool2d, 3: torch.nn.AvgPool3d}


class TimestepBlock(torch.nn.Module):
    """A layer that takes the time embedding as its second argument."""


class Upsample(torch.nn.Module):
    """Nearest-neighbour doubling (or to the shape of the layer that comes next), then a convolution if *use_conv*.

    With three dimensions the first (frames) keeps its length.
    """

    conv: Any

    def __init__(
        self,
        channels: int,
        use_conv: bool,
        dims: Dimensions = 2,
        out_channels: int | None = None,
        padding: int = 1,
        dtype: torch.dtype | None = None,
        device: torch.device | None = None,
        operations: Any = comfy.ops.disable_weight_init,
    ) -> None:
        super().__init__()
        self.channels, self.use_conv, self.dims = channels, use_conv, dims
        self.out_channels = out_channels or channels
        if use_conv:
            self.conv = operations.conv_nd(dims, channels, self.out_channels, 3, padding=padding, dtype=dtype, device=device)

    def forward(self, x: torch.Tensor, output_shape: Sequence[int] | None = None) -> torch.Tensor:
        """B x C x (frames x) height x width to the size at the end of *output_shape*, or to twice the size."""
        first = 3 if self.dims == 3 else 2
        sides = [2 * side for side in x.shape[first:]] if output_shape is None else list(output_shape)[first : x.ndim]
        x = F.interpolate(x, size=[*x.shape[2:first], *sides], mode="nearest")
        return self.conv(x) if self.use_conv else x


class Downsample(torch.nn.Module):
    """``op`` halves height and width, rounded up: a convolution if *use_conv*, else a mean over 2 x 2.

    With three dimensions the first (frames) keeps its length.
    """

    def __init__(
        self,
        channels: int,
        use_conv: bool,
        dims: Dimensions = 2,
        out_channels: int | None = None,
        padding: int = 1,
        dtype: torch.dtype | None = None,
        device: torch.device | None = None,
        operations: Any = comfy.ops.disable_weight_init,
    ) -> None:
        super().__init__()
        self.channels, self.use_conv, self.dims = channels, use_conv, dims
        self.out_channels = out_channels or channels
        stride: Any = (1, 2, 2) if dims == 3 else 2
        if use_conv:
            self.op = operations.conv_nd(dims, channels, self.out_channels, 3, stride=stride, padding=padding, dtype=dtype, device=device)
        elif self.out_channels == channels:
            self.op = _POOLS[dims](kernel_size=stride, stride=stride)
        else:
            raise ValueError(f"a mean cannot turn {channels} channels into {self.out_channels}; give use_conv=True")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """B x C x (frames x) height x width to half of the last two."""
        return self.op(x)


class ResBlock(TimestepBlock):
    """Two normalised convolutions around the time embedding, with a residual connection.

    *up* and *down* change the size between the first norm and its convolution, *use_scale_shift_norm* makes the embedding scale and
    shift the second norm instead of being added, *exchange_temb_dims* takes one embedding per frame, *skip_t_emb* takes none.
    """

    def __init__(
        self,
        channels: int,
        emb_channels: int,
        dropout: float,
        out_channels: int | None = None,
        use_conv: bool = False,
        use_scale_shift_norm: bool = False,
        dims: Dimensions = 2,
        use_checkpoint: bool = False,
        up: bool = False,
        down: bool = False,
        kernel_size: Any = 3,
        exchange_temb_dims: bool = False,
        skip_t_emb: bool = False,
        dtype: torch.dtype | None = None,
        device: torch.device | None = None,
        operations: Any = comfy.ops.disable_weight_init,
    ) -> None:
        super().__init__()
        self.channels, self.emb_channels, self.dropout = channels, emb_channels, dropout
        self.out_channels = width = out_channels or channels
        self.use_conv, self.use_checkpoint, self.use_scale_shift_norm = use_conv, use_checkpoint, use_scale_shift_norm
        self.skip_t_emb, self.exchange_temb_dims = skip_t_emb, exchange_temb_dims and not skip_t_emb
        self.updown = up or down
        kept: dict[str, Any] = {"dtype": dtype, "device": device}
        padding = [side // 2 for side in kernel_size] if isinstance(kernel_size, (list, tuple)) else kernel_size // 2
        convolution = {"kernel_size": kernel_size, "padding": padding, **kept}
        self.in_layers = torch.nn.Sequential(
            operations.GroupNorm(NORM_GROUPS, channels, **kept),
            torch.nn.SiLU(inplace=True),
            operations.conv_nd(dims, channels, width, **convolution),
        )
        self.h_upd, self.x_upd = self._size_changes(up, down, dims)
        features = 2 * width if use_scale_shift_norm else width
        self.emb_layers = None if skip_t_emb else torch.nn.Sequential(torch.nn.SiLU(), operations.Linear(emb_channels, features, **kept))
        self.out_layers = torch.nn.Sequential(
            operations.GroupNorm(NORM_GROUPS, width, **kept),
            torch.nn.SiLU(inplace=True),
            torch.nn.Dropout(p=dropout),
            operations.conv_nd(dims, width, width, **convolution),
        )
        self.skip_connection: torch.nn.Module = torch.nn.Identity()
        if width != channels:
            shortcut = convolution if use_conv else {"kernel_size": 1, **kept}
            self.skip_connection = operations.conv_nd(dims, channels, width, **shortcut)

    def _size_changes(self, up: bool, down: bool, dims: Dimensions) -> tuple[torch.nn.Module, torch.nn.Module]:
        if not (up or down):
            nothing = torch.nn.Identity()
            return nothing, nothing
        kind = Upsample if up else Downsample
        return kind(self.channels, False, dims), kind(self.channels, False, dims)

    def forward(self, x: torch.Tensor, emb: torch.Tensor) -> torch.Tensor:
        """B x C in x height x width, B x time width to B x C out x height x width."""
        return self._forward(x, emb)

    def _forward(self, x: torch.Tensor, emb: torch.Tensor) -> torch.Tensor:
        if self.updown:
            h, x = self.in_layers[-1](self.h_upd(self.in_layers[:-1](x))), self.x_upd(x)
        else:
            h = self.in_layers(x)
        if self.emb_layers is None:
            return self.skip_connection(x) + self.out_layers(h)
        embedded = self.emb_layers(emb).type(h.dtype)
        embedded = embedded.view(*embedded.shape, *(1,) * (h.ndim - embedded.ndim))
        if self.use_scale_shift_norm:
            scale, shift = embedded.chunk(2, dim=1)
            h = self.out_layers[1:](self.out_layers[0](h) * (1 + scale) + shift)
        else:
            h = self.out_layers(h + (embedded.movedim(1, 2) if self.exchange_temb_dims else embedded))
        return self.skip_connection(x) + h


class VideoResBlock(ResBlock):
    """A :class:`ResBlock` of each frame, and one over *video_kernel_size* frames after it (``time_stack``), mixed."""

    def __init__(
        self,
        channels: int,
        emb_channels: int,
        dropout: float,
        video_kernel_size: Any = 3,
        merge_strategy: str = "fixed",
        merge_factor: float = 0.5,
        out_channels: int | None = None,
        use_conv: bool = False,
        use_scale_shift_norm: bool = False,
        dims: Dimensions = 2,
        use_checkpoint: bool = False,
        up: bool = False,
        down: bool = False,
        dtype: torch.dtype | None = None,
        device: torch.device | None = None,
        operations: Any = comfy.ops.disable_weight_init,
    ) -> None:
        kept: dict[str, Any] = {"dtype": dtype, "device": device, "operations": operations}
        shape = (use_conv, use_scale_shift_norm, dims, use_checkpoint, up, down)
        super().__init__(channels, emb_channels, dropout, out_channels, *shape, **kept)
        frames: dict[str, Any] = {"dims": 3, "kernel_size": video_kernel_size, "exchange_temb_dims": True}
        self.time_stack = ResBlock(self.out_channels, emb_channels, dropout, self.out_channels, **frames, **kept)
        self.time_mixer = AlphaBlender(merge_factor, merge_strategy, rearrange_pattern="b t -> b 1 t 1 1")
        if device is not None:
            self.time_mixer.to(device)

    def forward(  # type: ignore[override]
        self, x: torch.Tensor, emb: torch.Tensor, num_video_frames: int, image_only_indicator: torch.Tensor | None = None
    ) -> torch.Tensor:
        """(B · frames) x C in x height x width and (B · frames) x time width to the same with C out."""
        alone = super().forward(x, emb).unflatten(0, (-1, num_video_frames)).transpose(1, 2)
        together = self.time_stack(alone, emb.unflatten(0, (-1, num_video_frames)))
        mixed = self.time_mixer(x_spatial=alone, x_temporal=together, image_only_indicator=image_only_indicator)
        return mixed.transpose(1, 2).flatten(0, 1)
