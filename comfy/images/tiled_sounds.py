"""Decoding and encoding sounds in pieces of time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

import comfy.utils

PLACES, SEAM = 256, 32  # of a latent, in one piece and common to two
SAMPLES_PER_PLACE = 2048


class TiledSounds:
    """What an autoencoder of sounds does in pieces. Shapes: sounds B x channels x samples, latents B x channels x places, for some with
    ``extra_1d_channel`` rows before the places.
    """

    first_stage_model: Any
    output_device: torch.device
    output_channels: int
    latent_channels: int
    upscale_ratio: Any
    downscale_ratio: Any
    extra_1d_channel: int | None
    process_input: Callable[[torch.Tensor], torch.Tensor]
    process_output: Callable[[torch.Tensor], torch.Tensor]
    _run: Callable[[Callable[[torch.Tensor], torch.Tensor], torch.Tensor], torch.Tensor]

    def decode_tiled_1d(self, samples: torch.Tensor, tile_x: int = PLACES, overlap: int = SEAM) -> torch.Tensor:
        """The sound of latents; sizes in places of a latent."""
        rows = samples.shape[1:-1]
        sound = comfy.utils.tiled_scale_multidim(
            samples.flatten(1, -2),
            lambda piece: self._run(self.first_stage_model.decode, piece.unflatten(1, rows)),
            tile=(tile_x,),
            overlap=overlap,
            upscale_amount=self.upscale_ratio,
            out_channels=self.output_channels,
            output_device=self.output_device,
        )
        return self.process_output(sound)

    def encode_tiled_1d(
        self, samples: torch.Tensor, tile_x: int = PLACES * SAMPLES_PER_PLACE, overlap: int = 2 * SEAM * SAMPLES_PER_PLACE
    ) -> torch.Tensor:
        """The latents of a sound; sizes in samples. With rows, pieces are shorter by their number, as in ComfyUI."""
        rows = (self.latent_channels,) if self.extra_1d_channel is None else (self.latent_channels, self.extra_1d_channel)
        shorter = self.extra_1d_channel or 1
        latents = comfy.utils.tiled_scale_multidim(
            samples,
            lambda piece: self._run(self.first_stage_model.encode, self.process_input(piece)).flatten(1, -2),
            tile=(tile_x // shorter,),
            overlap=overlap // shorter,
            upscale_amount=1 / self.downscale_ratio,
            out_channels=self.latent_channels * shorter,
            output_device=self.output_device,
        )
        return latents.unflatten(1, rows)
