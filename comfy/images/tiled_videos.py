"""Decoding and encoding videos in tiles of space and time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

import comfy.utils
from comfy.images.faded_tiles import in_faded_tiles
from comfy.residency.host_heap import activations_returned

ALL_FRAMES = 9999
Overlap = tuple[int, int, int]  # frames, height, width


class TiledVideos:
    """What an autoencoder of videos does in tiles. Shapes: B x channels x frames x height x width."""

    first_stage_model: Any
    _kind: Any
    latent_dim: int
    device: torch.device
    vae_dtype: torch.dtype
    output_device: torch.device
    output_channels: int
    latent_channels: int
    upscale_ratio: Any
    downscale_ratio: Any
    upscale_index_formula: tuple[int, ...] | None
    downscale_index_formula: tuple[int, ...] | None
    process_input: Callable[[torch.Tensor], torch.Tensor]
    process_output: Callable[[torch.Tensor], torch.Tensor]

    def vae_output_dtype(self) -> torch.dtype:
        """The dtype of results."""
        raise NotImplementedError

    def largest_tile(self, shape: tuple[int, ...], tile_x: int | None, tile_y: int | None, tile_t: int | None = None) -> tuple[int, ...]:
        """*shape*, or that of its largest tile of a video, whose working memory is needed at once; sides that are not given are whole."""
        if self.latent_dim != 3:
            return shape
        frames = None if tile_t is None or self._kind.fading else max(2, tile_t)
        return (*shape[:2], *(size if most is None else min(size, most) for size, most in zip(shape[2:], (frames, tile_y, tile_x))))

    def decode_tiled_3d(
        self, samples: torch.Tensor, tile_t: int = ALL_FRAMES, tile_x: int = 32, tile_y: int = 32, overlap: Overlap = (1, 8, 8)
    ) -> torch.Tensor:
        """The video of latents, channels first; sizes in latent frames and pixels."""
        if self._kind.fading:
            return self.process_output(
                self._faded(self.first_stage_model.decode, samples, (tile_y, tile_x), overlap, 1, (self.upscale_ratio[1], 1))
            )
        video = comfy.utils.tiled_scale_multidim(
            samples,
            lambda tile: self._run(self.first_stage_model.decode, tile),
            tile=(tile_t, tile_y, tile_x),
            overlap=overlap,
            upscale_amount=self.upscale_ratio,
            out_channels=self.output_channels,
            index_formulas=self.upscale_index_formula,
            output_device=self.output_device,
        )
        return self.process_output(video)

    def encode_tiled_3d(
        self, samples: torch.Tensor, tile_t: int = ALL_FRAMES, tile_x: int = 512, tile_y: int = 512, overlap: Overlap = (1, 64, 64)
    ) -> torch.Tensor:
        """The latents of a video, channels first; sizes in frames and picture pixels."""
        if self._kind.fading:
            side = self.downscale_ratio[1]
            encode = self.first_stage_model.encode
            return self._faded(lambda tile: encode(self.process_input(tile)), samples, (tile_y, tile_x), overlap, side, (1, side))
        return comfy.utils.tiled_scale_multidim(
            samples,
            lambda tile: self._run(self.first_stage_model.encode, self.process_input(tile)),
            tile=(tile_t, tile_y, tile_x),
            overlap=overlap,
            upscale_amount=self.downscale_ratio,
            out_channels=self.latent_channels,
            downscale=True,
            index_formulas=self.downscale_index_formula,
            output_device=self.output_device,
        )

    def _faded(
        self,
        network: Callable[[torch.Tensor], torch.Tensor],
        samples: torch.Tensor,
        tile: tuple[int, int],
        overlap: Overlap,
        cell: int,
        out_of: tuple[int, int],
    ) -> torch.Tensor:
        """In tiles of all frames; *cell* is the least by which a tile is larger than its seam."""
        seam = tuple(max(0, min(shared, side - cell)) for side, shared in zip(tile, overlap[1:]))
        made = in_faded_tiles(samples, lambda part: self._run(network, part), tile, (seam[0], seam[1]), out_of, self.output_device)
        return made.to(self.vae_output_dtype())

    def _run(self, network: Callable[[torch.Tensor], torch.Tensor], tile: torch.Tensor) -> torch.Tensor:
        with activations_returned(self.device):
            return network(tile.to(device=self.device, dtype=self.vae_dtype)).to(self.vae_output_dtype())

    def decode_video_tiles(
        self, samples: torch.Tensor, tile_x: int | None, tile_y: int | None, overlap: int | None, tile_t: int | None, overlap_t: int | None
    ) -> torch.Tensor:
        """:meth:`decode_tiled_3d` with what is not given chosen; at least two frames at a time, of which one overlaps."""
        given = {name: value for name, value in (("tile_x", tile_x), ("tile_y", tile_y)) if value is not None}
        seam = 8 if overlap is None else overlap
        frames = ALL_FRAMES if tile_t is None else max(2, tile_t)
        return self.decode_tiled_3d(samples, tile_t=frames, overlap=(max(1, overlap_t or 1), seam, seam), **given)

    def encode_video_tiles(
        self, pixels: torch.Tensor, tile_x: int | None, tile_y: int | None, overlap: int | None, tile_t: int | None, overlap_t: int | None
    ) -> torch.Tensor:
        """:meth:`encode_tiled_3d` with what is not given chosen, and times rounded to whole latent frames."""
        to_latent, to_video = self.downscale_ratio[0], self.upscale_ratio[0]
        given = {name: value for name, value in (("tile_x", tile_x), ("tile_y", tile_y)) if value is not None}
        latent_frames = ALL_FRAMES if tile_t is None else max(2, to_latent(tile_t))
        seam = 64 if overlap is None else overlap
        seam_t = 1 if overlap_t is None else to_video(max(1, min(latent_frames // 2, to_latent(overlap_t))))
        whole = to_video(to_latent(pixels.shape[2]))
        return self.encode_tiled_3d(pixels[:, :, :whole], tile_t=to_video(latent_frames), overlap=(seam_t, seam, seam), **given)
