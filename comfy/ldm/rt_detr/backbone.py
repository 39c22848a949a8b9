"""HGNetv2, PaddlePaddle's convolutional network: features of pictures at several sizes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own convention

from comfy.ldm.modules.batch_norm import FixedBatchNorm
from comfy.ldm.sam3.sam import layers_of


@dataclass(frozen=True, slots=True)
class Stage:
    """*inputs* channels become *outputs* in *blocks* of *layers* of *inner* ones with kernels of *kernel*; *light*: layers mix channels and
    then convolve each; *halves*: the sides."""

    inputs: int
    inner: int
    outputs: int
    blocks: int
    layers: int
    kernel: int
    light: bool
    halves: bool


class Convolution(torch.nn.Module):
    """A convolution with a bias, and with *act* SiLU."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1, act: bool = False, **made: Any) -> None:
        super().__init__()
        operations, kept = layers_of(made)
        self.conv = operations.Conv2d(inputs, outputs, kernel, stride=stride, padding=kernel // 2, groups=groups, **kept)
        self.act = act

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """B x C x H x W."""
        x = self.conv(x)
        return F.silu(x) if self.act else x


class ConvBNAct(torch.nn.Module):
    """A convolution, normed, and with *act* rectified."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1, act: bool = True, **made: Any) -> None:
        super().__init__()
        operations, kept = layers_of(made)
        padding = (kernel - 1) // 2
        self.conv = operations.Conv2d(inputs, outputs, kernel, stride=stride, padding=padding, groups=groups, bias=False, **kept)
        self.bn = FixedBatchNorm(outputs, **kept)
        self.act = act

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """B x C x H x W."""
        x = self.bn(self.conv(x))
        return F.relu(x) if self.act else x


class LightConvBNAct(torch.nn.Module):
    """Channels are mixed, then each is convolved."""

    def __init__(self, inputs: int, outputs: int, kernel: int, **made: Any) -> None:
        super().__init__()
        self.conv1 = ConvBNAct(inputs, outputs, 1, act=False, **made)
        self.conv2 = ConvBNAct(outputs, outputs, kernel, groups=outputs, **made)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """B x C x H x W."""
        return self.conv2(self.conv1(x))


class _Stem(torch.nn.Module):
    """A quarter of the picture's sides; *sizes*: inner and last channels."""

    def __init__(self, sizes: tuple[int, int], **made: Any) -> None:
        super().__init__()
        inner, last = sizes
        self.stem1 = ConvBNAct(3, inner, 3, 2, **made)
        self.stem2a = ConvBNAct(inner, inner // 2, 2, **made)
        self.stem2b = ConvBNAct(inner // 2, inner, 2, **made)
        self.stem3 = ConvBNAct(inner * 2, inner, 3, 2, **made)
        self.stem4 = ConvBNAct(inner, last, 1, **made)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.pad(self.stem1(x), (0, 1, 0, 1))
        other = self.stem2b(F.pad(self.stem2a(x), (0, 1, 0, 1)))
        return self.stem4(self.stem3(torch.cat([F.max_pool2d(x, 2, 1, ceil_mode=True), other], dim=1)))


class _Block(torch.nn.Module):
    """Layers one after the other, whose results are all mixed; *short*: what came in is added."""

    def __init__(self, inputs: int, stage: Stage, short: bool, **made: Any) -> None:
        super().__init__()
        self.short = short
        layer: Any = LightConvBNAct if stage.light else ConvBNAct
        widths = [inputs] + [stage.inner] * (stage.layers - 1)
        self.layers = torch.nn.ModuleList(layer(width, stage.inner, stage.kernel, **made) for width in widths)
        half = ConvBNAct(inputs + stage.layers * stage.inner, stage.outputs // 2, 1, **made)
        self.aggregation = torch.nn.Sequential(half, ConvBNAct(stage.outputs // 2, stage.outputs, 1, **made))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found = [x]
        for layer in self.layers:
            found.append(layer(found[-1]))
        mixed = self.aggregation(torch.cat(found, dim=1))
        return mixed + x if self.short else mixed


class _Stage(torch.nn.Module):
    """One size of features."""

    def __init__(self, stage: Stage, **made: Any) -> None:
        super().__init__()
        halving = ConvBNAct(stage.inputs, stage.inputs, 3, 2, groups=stage.inputs, act=False, **made)
        self.downsample = halving if stage.halves else torch.nn.Identity()
        self.blocks = torch.nn.Sequential(
            *(_Block(stage.inputs if number == 0 else stage.outputs, stage, number > 0, **made) for number in range(stage.blocks))
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.blocks(self.downsample(x))


class HGNetv2(torch.nn.Module):
    """Pictures to features of the last three of *stages*."""

    def __init__(self, stem: tuple[int, int], stages: Sequence[Stage], **made: Any) -> None:
        super().__init__()
        self.stem = _Stem(stem, **made)
        self.stages = torch.nn.ModuleList(_Stage(stage, **made) for stage in stages)

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        """B x 3 x H x W to features of an eighth, a sixteenth and a thirty-second of the sides."""
        found = [self.stem(x)]
        for stage in self.stages:
            found.append(stage(found[-1]))
        return found[-3:]
