"""DiffSynth-Studio's ControlNets for Qwen-Image: a picture's latent, as tokens, corrects the model's tokens after each of its blocks.

Shapes: B batch, I tokens of the picture, C the model's width.
"""

from __future__ import annotations

from typing import Any

import torch

import comfy.latent_formats
import comfy.ldm.common_dit

PATCH = 2
LATENT_CHANNELS = 16
EPS = 1e-6


class BlockWiseControlBlock(torch.nn.Module):
    """The correction after one block: two norms, two layers, GELU between them."""

    def __init__(
        self, dim: int = 3072, device: torch.device | None = None, dtype: torch.dtype | None = None, operations: Any = None
    ) -> None:
        super().__init__()
        kept = {"device": device, "dtype": dtype}
        self.x_rms, self.y_rms = (operations.RMSNorm(dim, eps=EPS, **kept) for _ in range(2))
        self.input_proj, self.output_proj = (operations.Linear(dim, dim, **kept) for _ in range(2))

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """B x I x C of the model's tokens *x* and the picture's *y*."""
        inner = self.input_proj(self.x_rms(x) + self.y_rms(y))
        result: torch.Tensor = self.output_proj(torch.nn.functional.gelu(inner))
        return result


class QwenImageBlockWiseControlNet(torch.nn.Module):
    """*num_layers* such corrections. *additional_in_dim*: how many values of a mask a token has beside the latent's *in_dim*."""

    source_name = ""  # the file it comes from

    def __init__(
        self,
        num_layers: int = 60,
        in_dim: int = PATCH**2 * LATENT_CHANNELS,
        additional_in_dim: int = 0,
        dim: int = 3072,
        device: torch.device | None = None,
        dtype: torch.dtype | None = None,
        operations: Any = None,
    ) -> None:
        super().__init__()
        self.additional_in_dim, self.dim = additional_in_dim, dim
        self.img_in = operations.Linear(in_dim + additional_in_dim, dim, device=device, dtype=dtype)
        self.controlnet_blocks = torch.nn.ModuleList(BlockWiseControlBlock(dim, device, dtype, operations) for _ in range(num_layers))

    def process_input_latent_image(self, latent_image: torch.Tensor) -> torch.Tensor:
        """B x I x C for *latent_image* (B x channels x 1 x height x width) as the autoencoder gave it, with the mask's channels behind."""
        latent = comfy.latent_formats.Wan21().process_in(latent_image[:, :LATENT_CHANNELS])
        joined = torch.cat((latent, latent_image[:, LATENT_CHANNELS:].to(latent)), dim=1)
        padded = comfy.ldm.common_dit.pad_to_patch_size(joined, (1, PATCH, PATCH)).squeeze(2)
        cells = torch.nn.functional.pixel_unshuffle(padded, PATCH)  # B x (channels, row in patch, column in patch) x rows x columns
        tokens: torch.Tensor = self.img_in(cells.flatten(2).transpose(1, 2))
        return tokens

    def control_block(self, img: torch.Tensor, controlnet_conditioning: torch.Tensor, block_id: int) -> torch.Tensor:
        """What to add to *img* (B x I x C) after the block *block_id*."""
        correction: torch.Tensor = self.controlnet_blocks[block_id](img, controlnet_conditioning)
        return correction
