"""How LTX's latents become tokens, and where each token lies: of videos in pixels, of sound in seconds.

Shapes: B batch, N tokens. A place is a beginning and, where a patchifier is told so, an end: (B x axes x N) or (B x axes x N x 2).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

SAMPLE_RATE, HOP, MEL_FRAMES_PER_LATENT = 16000, 160, 4  # of the sound whose spectrum the audio autoencoder encodes


def latent_to_pixel_coords(latent_coords: torch.Tensor, scale_factors: Sequence[int], causal_fix: bool = False) -> torch.Tensor:
    """Places in cells (frames, rows, columns) as places in pixels, *scale_factors* of which a cell spans.

    *causal_fix*: the first cell of time spans one frame only, so that all later ones begin sooner.
    """
    factors = torch.tensor(scale_factors, device=latent_coords.device).view(1, -1, *(1,) * (latent_coords.ndim - 2))
    places = latent_coords * factors
    if causal_fix:
        places[:, 0] = (places[:, 0] + 1 - scale_factors[0]).clamp(min=0)
    return places


class Patchifier:
    """What both kinds share: the patch's size (frames, rows, columns), and whether places have an end."""

    def __init__(self, patch_size: int, start_end: bool = False) -> None:
        self._patch_size = (1, patch_size, patch_size)
        self.start_end = start_end

    @property
    def patch_size(self) -> tuple[int, int, int]:
        """Cells that one token spans."""
        return self._patch_size

    def get_latent_coords(
        self, latent_num_frames: int, latent_height: int, latent_width: int, batch_size: int, device: Any
    ) -> torch.Tensor:
        """The places of all tokens of such a latent, in cells; row after row, frame after frame."""
        lengths = (latent_num_frames, latent_height, latent_width)
        ranges = [torch.arange(0, length, patch, device=device) for length, patch in zip(lengths, self._patch_size)]
        begin = torch.stack([axis.flatten() for axis in torch.meshgrid(*ranges, indexing="ij")])
        end = begin + torch.tensor(self._patch_size, device=device)[:, None]
        places = torch.stack((begin, end), dim=-1) if self.start_end else begin
        return places.expand(batch_size, *places.shape).clone()


class SymmetricPatchifier(Patchifier):
    """Of videos."""

    def patchify(self, latents: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """*latents* (B x channels x frames x height x width) as tokens (B x N x values), and their places in cells."""
        batch, channels, frames, height, width = latents.shape
        _, rows, columns = self._patch_size
        cells = latents.reshape(batch, channels, frames, height // rows, rows, width // columns, columns)
        tokens = cells.permute(0, 2, 3, 5, 1, 4, 6).flatten(4).flatten(1, 3)
        return tokens, self.get_latent_coords(frames, height, width, batch, latents.device)

    def unpatchify(
        self, latents: torch.Tensor, output_height: int, output_width: int, output_num_frames: int, out_channels: int
    ) -> torch.Tensor:
        """The latent whose tokens are *latents*."""
        _, rows, columns = self._patch_size
        grid = (output_num_frames, output_height // rows, output_width // columns)
        cells = latents.reshape(len(latents), *grid, out_channels, rows, columns)
        return cells.permute(0, 4, 1, 2, 5, 3, 6).reshape(len(latents), out_channels, output_num_frames, output_height, output_width)


class AudioPatchifier(Patchifier):
    """Of sound, as the audio autoencoder writes it: a token for each moment."""

    def __init__(
        self,
        patch_size: int,
        sample_rate: int = SAMPLE_RATE,
        hop_length: int = HOP,
        audio_latent_downsample_factor: int = MEL_FRAMES_PER_LATENT,
        is_causal: bool = True,
        start_end: bool = False,
        shift: int = 0,
    ) -> None:
        super().__init__(patch_size, start_end=start_end)
        self.sample_rate, self.hop_length = sample_rate, hop_length
        self.audio_latent_downsample_factor = audio_latent_downsample_factor
        self.is_causal, self.shift = is_causal, shift

    @property
    def seconds_per_token(self) -> float:
        """The time from one token to the next."""
        return self.audio_latent_downsample_factor * self.hop_length / self.sample_rate

    def times(self, first: int, count: int, device: Any) -> torch.Tensor:
        """When *count* tokens begin, of which the one with the number *first* is the first, in seconds; with their ends if asked for."""
        begin = self._begins(torch.arange(first, first + count, dtype=torch.float32, device=device))
        if not self.start_end:
            return begin
        end = self._begins(torch.arange(first + 1, first + count + 1, dtype=torch.float32, device=device))
        return torch.stack((begin, end), dim=-1)

    def _begins(self, numbers: torch.Tensor) -> torch.Tensor:
        mel_frames = numbers * self.audio_latent_downsample_factor
        if self.is_causal:  # the first token spans one frame of the spectrum only
            mel_frames = (mel_frames + 1 - self.audio_latent_downsample_factor).clip(min=0)
        return mel_frames * self.hop_length / self.sample_rate

    def patchify(self, audio_latents: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """*audio_latents* (B x channels x times x pitches) as tokens (B x times x values), and their places in seconds."""
        batch, _, count, _ = audio_latents.shape
        times = self.times(self.shift, count, audio_latents.device)
        return audio_latents.transpose(1, 2).flatten(2), times.expand(batch, 1, *times.shape)

    def unpatchify(self, audio_latents: torch.Tensor, channels: int, freq: int) -> torch.Tensor:
        """The latent whose tokens are *audio_latents*."""
        return audio_latents.unflatten(2, (channels, freq)).transpose(1, 2)
