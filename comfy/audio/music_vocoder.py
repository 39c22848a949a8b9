"""ACE-Step 1's vocoder: sound from pictures of its loudness by pitch (mel spectrograms), and such pictures of sound.

Shapes: B sounds of one channel, M rows of a picture, F columns, T samples. Parameters have the published names, with the older ones of
normed weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own convention

import comfy.ops
from comfy.audio.normed import Normed, NormedConvolution, NormedTransposed

ops = comfy.ops.disable_weight_init

RATE_HZ, WINDOW, HOP = 44100, 2048, 512
ROWS, LOWEST_HZ, HIGHEST_HZ = 128, 40, 16000
QUIETEST = 1e-5
EPS = 1e-6
DILATIONS = (1, 3, 5)


@dataclass(frozen=True, slots=True)
class VocoderConfig:
    """Sizes: blocks and channels of each stage of the first network; channels, and kernels and strides of the second's steps up, and the
    kernels of the blocks after each of them.
    """

    depths: tuple[int, ...]
    widths: tuple[int, ...]
    channels: int
    kernels: tuple[int, ...]
    strides: tuple[int, ...]
    block_kernels: tuple[int, ...]
    first_kernel: int
    last_kernel: int


class ChannelNorm(torch.nn.Module):
    """Normalisation over channels, which come before or after the places."""

    def __init__(self, width: int, channels_first: bool = False) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.empty(width))
        self.bias = torch.nn.Parameter(torch.empty(width))
        self.channels_first = channels_first

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """B x C x F, or B x F x C."""
        x = x.mT if self.channels_first else x
        x = F.layer_norm(x, x.shape[-1:], self.weight.to(x), self.bias.to(x), EPS)
        return x.mT if self.channels_first else x


class ConvNeXtBlock(torch.nn.Module):
    """A convolution of each channel by itself, and a wider layer and a narrower one."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.dwconv = ops.Conv1d(width, width, kernel_size=7, padding=3, groups=width)
        self.norm = ChannelNorm(width)
        self.pwconv1 = ops.Linear(width, 4 * width)
        self.pwconv2 = ops.Linear(4 * width, width)
        self.gamma = torch.nn.Parameter(torch.empty(width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """B x C x F to B x C x F."""
        inner = self.pwconv2(F.gelu(self.pwconv1(self.norm(self.dwconv(x).mT))))
        return x + (self.gamma.to(inner) * inner).mT


class ConvNeXtEncoder(torch.nn.Module):
    """Stages of such blocks, each wider than the last."""

    def __init__(self, depths: Sequence[int], widths: Sequence[int]) -> None:
        super().__init__()
        first = ops.Conv1d(ROWS, widths[0], kernel_size=7, padding=3, padding_mode="replicate")
        self.channel_layers = torch.nn.ModuleList([torch.nn.Sequential(first, ChannelNorm(widths[0], channels_first=True))])
        for inner, outer in zip(widths, widths[1:]):
            wider = ops.Conv1d(inner, outer, kernel_size=1)
            self.channel_layers.append(torch.nn.Sequential(ChannelNorm(inner, channels_first=True), wider))
        self.stages = torch.nn.ModuleList(
            torch.nn.Sequential(*(ConvNeXtBlock(width) for _ in range(depth))) for depth, width in zip(depths, widths)
        )
        self.norm = ChannelNorm(widths[-1], channels_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """B x M x F to B x width x F."""
        for layer, stage in zip(self.channel_layers, self.stages):
            x = stage(layer(x))
        return self.norm(x)


class ResidualBlock(torch.nn.Module):
    """Pairs of convolutions, the first of each with its tens of samples further apart than the last pair's."""

    def __init__(self, width: int, kernel: int) -> None:
        super().__init__()
        spread = [NormedConvolution(width, width, kernel, dilation=step, padding=(kernel - 1) * step // 2) for step in DILATIONS]
        near = [NormedConvolution(width, width, kernel, padding=(kernel - 1) // 2) for _ in DILATIONS]
        self.convs1, self.convs2 = torch.nn.ModuleList(spread), torch.nn.ModuleList(near)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """B x C x T to B x C x T."""
        for spread, near in zip(self.convs1, self.convs2):
            x = x + near(F.silu(spread(F.silu(x))))
        return x


class HiFiGANGenerator(torch.nn.Module):
    """From columns to samples, in steps; after each the mean of several blocks."""

    def __init__(self, config: VocoderConfig) -> None:
        super().__init__()
        width, wide = config.channels, config.first_kernel
        self.conv_pre = NormedConvolution(config.widths[-1], width, wide, padding=(wide - 1) // 2)
        self.ups, self.resblocks = torch.nn.ModuleList(), torch.nn.ModuleList()
        for kernel, stride in zip(config.kernels, config.strides):
            self.ups.append(NormedTransposed(width, width // 2, kernel, stride, padding=(kernel - stride) // 2))
            width //= 2
            self.resblocks.extend(ResidualBlock(width, own) for own in config.block_kernels)
        self.conv_post = NormedConvolution(width, 1, config.last_kernel, padding=(config.last_kernel - 1) // 2)
        self.each = len(config.block_kernels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """B x width x F to B x 1 x T."""
        x = self.conv_pre(x)
        for number, up in enumerate(self.ups):
            x = up(F.silu(x))
            first, *others = self.resblocks[number * self.each : (number + 1) * self.each]
            total = first(x)
            for block in others:
                total += block(x)
            x = total / self.each
        return torch.tanh(self.conv_post(F.silu(x)))


class MusicVocoder(torch.nn.Module):
    """The two networks, and what makes pictures of sound."""

    def __init__(self, config: VocoderConfig) -> None:
        super().__init__()
        self.backbone = ConvNeXtEncoder(config.depths, config.widths)
        self.head = HiFiGANGenerator(config)
        for layer in self.modules():
            if isinstance(layer, Normed):
                layer.part()

    def decode(self, mel: torch.Tensor) -> torch.Tensor:
        """B x M x F to B x 1 x T."""
        return self.head(self.backbone(mel))


def log_mel(sound: torch.Tensor) -> torch.Tensor:
    """Pictures (B x M x F) of *sound* (B x T): the logarithm of its loudness, by pitch."""
    window = torch.hann_window(WINDOW, device=sound.device)
    before, after = (WINDOW - HOP) // 2, (WINDOW - HOP + 1) // 2
    padded = F.pad(sound[:, None], (before, after), mode="reflect")[:, 0].float()
    waves: Any = torch.stft(padded, WINDOW, HOP, WINDOW, window, center=False, return_complex=True)
    loudness = torch.view_as_real(waves).pow(2).sum(-1).add(1e-6).sqrt().to(sound.dtype)
    return (_filters(sound) @ loudness).clamp(min=QUIETEST).log()


def _filters(like: torch.Tensor) -> torch.Tensor:
    """How much each frequency counts for each pitch: M x frequencies."""
    from transformers.audio_utils import mel_filter_bank

    bank = mel_filter_bank(WINDOW // 2 + 1, ROWS, LOWEST_HZ, HIGHEST_HZ, RATE_HZ, norm="slaney", mel_scale="slaney")
    return torch.from_numpy(bank).T.to(like)
