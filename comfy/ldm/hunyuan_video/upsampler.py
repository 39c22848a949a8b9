"""The networks that make HunyuanVideo 1.5's latents sharper after they were enlarged, with the published parameter names.

Shapes: B batch, C channels.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own convention

import comfy.model_management
import comfy.ops

ops = comfy.ops.disable_weight_init


class VideoConv3d(torch.nn.Module):
    """A convolution over frames and pictures that sees no later frame; what lies outside repeats the edge."""

    def __init__(self, n_channels: int, out_channels: int, kernel_size: int = 3) -> None:
        super().__init__()
        self.conv = ops.Conv3d(n_channels, out_channels, kernel_size)
        side = kernel_size // 2
        self.padding = (side, side, side, side, kernel_size - 1, 0)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """B x C x frames x height x width to the same sizes."""
        return self.conv(F.pad(x, self.padding, mode="replicate"))


class RMS_norm(torch.nn.Module):  # noqa: N801 - ComfyUI's name
    """Channels divided by their root mean square."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.scale = dim**0.5
        self.gamma = torch.nn.Parameter(torch.empty(dim, 1, 1, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """B x C x frames x height x width."""
        return F.normalize(x, dim=1) * self.scale * comfy.model_management.cast_to(self.gamma, dtype=x.dtype, device=x.device)


class SRResidualCausalBlock3D(torch.nn.Module):
    """Three convolutions beside a shortcut."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        layers = [VideoConv3d(channels, channels) for _ in range(3)]
        self.block = torch.nn.Sequential(layers[0], torch.nn.SiLU(), layers[1], torch.nn.SiLU(), layers[2])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """B x C x frames x height x width."""
        return x + self.block(x)


class SRModel3DV2(torch.nn.Module):
    """The network for 720p. *global_residual*: whether its input is added to its result."""

    def __init__(
        self, in_channels: int, out_channels: int, hidden_channels: int = 64, num_blocks: int = 6, global_residual: bool = False
    ) -> None:
        super().__init__()
        self.in_conv = VideoConv3d(in_channels, hidden_channels)
        self.blocks = torch.nn.ModuleList(SRResidualCausalBlock3D(hidden_channels) for _ in range(num_blocks))
        self.out_conv = VideoConv3d(hidden_channels, out_channels)
        self.global_residual = global_residual

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Latents to latents of the same sizes."""
        hidden = self.in_conv(x)
        for block in self.blocks:
            hidden = block(hidden)
        sharper = self.out_conv(hidden)
        return sharper + x if self.global_residual and sharper.shape == x.shape else sharper


class UpsamplerBlock(torch.nn.Module):
    """Two normalised convolutions beside a shortcut."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = RMS_norm(in_channels), RMS_norm(out_channels)
        self.conv1, self.conv2 = VideoConv3d(in_channels, out_channels), VideoConv3d(out_channels, out_channels)
        self.nin_shortcut = torch.nn.Identity() if in_channels == out_channels else ops.Conv3d(in_channels, out_channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """B x in x frames x height x width to B x out x the same."""
        return self.nin_shortcut(x) + self.conv2(F.silu(self.norm2(self.conv1(F.silu(self.norm1(x))))))


class _Stage(torch.nn.Module):
    """Blocks of one width, in the published tree."""

    def __init__(self, in_channels: int, out_channels: int, count: int) -> None:
        super().__init__()
        self.block = torch.nn.Sequential(
            *(UpsamplerBlock(out_channels if number else in_channels, out_channels) for number in range(count))
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.block(x)


class Upsampler(torch.nn.Module):
    """The network for 1080p."""

    def __init__(self, z_channels: int, out_channels: int, block_out_channels: Sequence[int], num_res_blocks: int = 2) -> None:
        super().__init__()
        first, *_, last = block_out_channels
        self.repeats = first // z_channels
        self.conv_in = VideoConv3d(z_channels, first)
        inner = (first, *block_out_channels[:-1])
        self.up = torch.nn.ModuleList(_Stage(*widths, num_res_blocks + 1) for widths in zip(inner, block_out_channels))
        self.norm_out, self.conv_out = RMS_norm(last), VideoConv3d(last, out_channels)

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        """Latents to latents of the same sizes."""
        x = self.conv_in(z) + z.repeat_interleave(self.repeats, dim=1)
        for stage in self.up:
            x = stage(x)
        return self.conv_out(F.silu(self.norm_out(x)))


UPSAMPLERS: dict[str, type[Any]] = {"720p": SRModel3DV2, "1080p": Upsampler}


class HunyuanVideo15SRModel:
    """Such a network, a key of :data:`UPSAMPLERS` with its sizes, and its patcher. Parameters are unset until weights are loaded."""

    WIDEST = 6  # how many copies of the widest layer's result are alive at once

    def __init__(self, model_type: str, config: dict[str, Any]) -> None:
        from comfy.model_patcher import CoreModelPatcher

        management = comfy.model_management
        self.load_device, self.dtype = management.vae_device(), torch.float32
        with torch.device("meta"):
            self.model = UPSAMPLERS[model_type](**config).eval().requires_grad_(False)
        self.patcher = CoreModelPatcher(self.model, load_device=self.load_device, offload_device=management.vae_offload_device())

    def get_sd(self) -> dict[str, torch.Tensor]:
        """The weights, by name."""
        return self.model.state_dict()

    def resample_latent(self, latent: torch.Tensor) -> torch.Tensor:
        """*latent*, sharper, on the network's device in float32."""
        widest = max(layer.out_channels for layer in self.model.modules() if isinstance(layer, torch.nn.Conv3d))
        needed = latent[:, :1].numel() * widest * self.dtype.itemsize * self.WIDEST
        comfy.model_management.load_models_gpu([self.patcher], memory_required=needed)
        return self.model(latent.to(device=self.load_device, dtype=self.dtype))
