"""RIFE's network from its version 4 on (Huang et al., ECCV 2022), with heads that look at each frame alone, in its authors' weight names.

Shapes: B batch, H and W rows and columns in pixels, C features.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own convention

import comfy.ops

SLOPE = 0.2
SCALES = (16, 8, 4, 2, 1)  # how much coarser each block sees the frames
CONVOLUTIONS = 8
FEATURES = 8  # that a block hands to the next
BYTES_PER_VALUE = 300  # of working memory for each pixel and byte of a value, as ComfyUI counts it
Cache = Mapping[str, Any]


class Head(torch.nn.Module):
    """What is seen in one frame, of its size."""

    def __init__(self, out_ch: int = 4, operations: Any = comfy.ops.disable_weight_init, **kept: Any) -> None:
        super().__init__()
        self.cnn0 = operations.Conv2d(3, 16, 3, 2, 1, **kept)
        self.cnn1, self.cnn2 = (operations.Conv2d(16, 16, 3, 1, 1, **kept) for _ in range(2))
        self.cnn3 = operations.ConvTranspose2d(16, out_ch, 4, 2, 1, **kept)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """B x 3 x H x W to B x *out_ch* x H x W; both sides are even."""
        for layer in (self.cnn0, self.cnn1, self.cnn2):
            x = F.leaky_relu(layer(x), SLOPE)
        seen: torch.Tensor = self.cnn3(x)
        return seen


class ResConv(torch.nn.Module):
    """A convolution beside what goes through, each channel of it weighed."""

    def __init__(self, c: int, operations: Any = comfy.ops.disable_weight_init, **kept: Any) -> None:
        super().__init__()
        self.conv = operations.Conv2d(c, c, 3, 1, 1, **kept)
        self.beta = torch.nn.Parameter(torch.ones((1, c, 1, 1), **kept))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """B x C x H x W, kept."""
        return F.leaky_relu(torch.addcmul(x, self.conv(x), self.beta), SLOPE)


class IFBlock(torch.nn.Module):
    """From frames and what is known so far: how pixels move, how much each frame counts, and features for the next block."""

    def __init__(self, in_planes: int, c: int = 64, operations: Any = comfy.ops.disable_weight_init, **kept: Any) -> None:
        super().__init__()
        halves = ((in_planes, c // 2), (c // 2, c))
        self.conv0 = torch.nn.Sequential(
            *(
                torch.nn.Sequential(operations.Conv2d(wide, made, 3, 2, 1, **kept), torch.nn.LeakyReLU(SLOPE, inplace=True))
                for wide, made in halves
            )
        )
        self.convblock = torch.nn.Sequential(*(ResConv(c, operations=operations, **kept) for _ in range(CONVOLUTIONS)))
        last = operations.ConvTranspose2d(c, 4 * (4 + 1 + FEATURES), 4, 2, 1, **kept)
        self.lastconv = torch.nn.Sequential(last, torch.nn.PixelShuffle(2))

    def forward(self, x: torch.Tensor, flow: torch.Tensor | None = None, scale: int = 1) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """*x* B x C x H x W, *flow* B x 4 x H x W in pixels: (further flow, mask before the sigmoid, features), of the same sides."""
        x = F.interpolate(x, scale_factor=1.0 / scale, mode="bilinear")
        if flow is not None:
            x = torch.cat((x, F.interpolate(flow, scale_factor=1.0 / scale, mode="bilinear") / scale), dim=1)
        made = F.interpolate(self.lastconv(self.convblock(self.conv0(x))), scale_factor=scale, mode="bilinear")
        moved, mask, features = made.split((4, 1, FEATURES), dim=1)
        return moved * scale, mask, features


class IFNet(torch.nn.Module):
    """The network. *channels* of its five blocks, coarse to fine; *head_ch* values that the head says of each pixel."""

    pad_align = 64  # pixels that sides are a multiple of

    def __init__(
        self,
        head_ch: int = 4,
        channels: Sequence[int] = (192, 128, 96, 64, 32),
        operations: Any = comfy.ops.disable_weight_init,
        **kept: Any,
    ) -> None:
        super().__init__()
        made = {"operations": operations, **kept}
        self.encode = Head(head_ch, **made)
        frames = 2 * (3 + head_ch) + 1  # both, what is seen in them, and the time
        widths = [frames] + [frames + 1 + FEATURES + 4] * (len(channels) - 1)
        self.blocks = torch.nn.ModuleList(IFBlock(width, inner, **made) for width, inner in zip(widths, channels, strict=True))

    def get_dtype(self) -> torch.dtype:
        """Of its weights."""
        dtype: torch.dtype = self.encode.cnn0.weight.dtype
        return dtype

    def memory_used_forward(self, shape: Sequence[int], dtype: torch.dtype) -> int:
        """Bytes of working memory for frames of *shape* (F x H x W x 3)."""
        return BYTES_PER_VALUE * shape[1] * shape[2] * dtype.itemsize

    def extract_features(self, img: torch.Tensor) -> torch.Tensor:
        """What is seen in a frame alone (1 x 3 x H x W), which can be used for both of its neighbours."""
        seen: torch.Tensor = self.encode(img)
        return seen

    def between(self, img0: torch.Tensor, img1: torch.Tensor, times: Sequence[float], cache: Cache | None = None) -> torch.Tensor:
        """The frames between two (1 x 3 x H x W) at *times* in 0…1, all in one batch."""
        count = len(times)
        at = torch.tensor(times, device=img0.device, dtype=img0.dtype).view(-1, 1, 1, 1).expand(-1, 1, *img0.shape[2:])
        return self(img0.expand(count, -1, -1, -1), img1.expand(count, -1, -1, -1), at, cache)

    def forward(
        self, img0: torch.Tensor, img1: torch.Tensor, timestep: torch.Tensor | float = 0.5, cache: Cache | None = None
    ) -> torch.Tensor:
        """The frame of each pair of B x 3 x H x W at *timestep*, B x 1 x H x W or one for all. *cache* holds the features of ``img0`` and
        ``img1`` where they are known.
        """
        if not isinstance(timestep, torch.Tensor):
            timestep = torch.full_like(img0[:, :1], timestep)
        known = cache or {}
        seen = [
            known[name].expand(len(img), -1, -1, -1) if name in known else self.encode(img)
            for name, img in (("img0", img0), ("img1", img1))
        ]
        flow, mask, features = self.blocks[0](torch.cat((img0, img1, *seen, timestep), dim=1), None, scale=SCALES[0])
        for block, scale in zip(list(self.blocks)[1:], SCALES[1:]):
            parts = [_moved(part, way) for pair in ((img0, img1), seen) for part, way in zip(pair, flow.chunk(2, dim=1))]
            further, mask, features = block(torch.cat((*parts, timestep, mask, features), dim=1), flow, scale=scale)
            flow = flow + further
        first, second = (_moved(img, way) for img, way in zip((img0, img1), flow.chunk(2, dim=1)))
        return torch.lerp(second, first, mask.sigmoid())


def _moved(img: torch.Tensor, flow: torch.Tensor) -> torch.Tensor:
    """*img* (B x C x H x W) as seen from where *flow* (B x 2 x H x W, columns and rows in pixels) points; in float32 within."""
    axes = [torch.linspace(-1.0, 1.0, length, device=img.device) for length in img.shape[2:]]
    rows, columns = torch.meshgrid(*axes, indexing="ij")
    halves = torch.tensor([(length - 1) / 2 for length in reversed(img.shape[2:])], device=img.device)
    grid = torch.stack((columns, rows), dim=-1) + flow.float().movedim(1, -1) / halves
    return F.grid_sample(img.float(), grid, mode="bilinear", padding_mode="border", align_corners=True).to(img.dtype)


def detect_rife_config(state_dict: Mapping[str, Any]) -> tuple[int, list[int]]:
    """(values of the head, channels of the blocks) of a file in the network's names. Raises ``ValueError`` for others than five blocks,
    ``KeyError`` for one without a head.
    """
    head_ch = state_dict["encode.cnn3.weight"].shape[1]
    names = [f"blocks.{number}.conv0.1.0.weight" for number in range(len(SCALES))]
    channels = [state_dict[name].shape[0] for name in names if name in state_dict]
    if len(channels) != len(SCALES):
        raise ValueError(f"it has {len(channels)} of the {len(SCALES)} blocks of RIFE 4")
    return head_ch, channels
