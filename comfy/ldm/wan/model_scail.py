"""SCAIL and SCAIL-2: a picture of figures that move as a video of poses, which has tokens beside the video that is made.

Pictures are latent frames before the video, the first of them last; the output does not have them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch

from comfy.ldm.common_dit import pad_to_patch_size
from comfy.ldm.wan.model import After, WanModel

Options = dict[str, Any]
ASIDE = 120.0  # patches by which a pose's video stands beside the one that is made; when figures are replaced, a picture as far below it
MASK_CHANNELS = 28  # seven colours of figures for each of the four frames of a latent one


class SCAILWanModel(WanModel):
    """SCAIL. ``pose_latents`` may be of half the sides of the video; then they spread over the same places."""

    FLOAT32 = (*WanModel.FLOAT32, "patch_embedding_pose.")

    def __init__(
        self,
        model_type: str = "scail",
        in_dim: int = 20,
        device: Any = None,
        dtype: torch.dtype | None = None,
        operations: Any = None,
        **sizes: Any,
    ) -> None:
        super().__init__("i2v", in_dim=in_dim, device=device, dtype=dtype, operations=operations, **sizes)
        self.patch_embedding_pose = self._new_patches(in_dim, device, operations)

    def _new_patches(self, channels: int, device: Any, operations: Any) -> torch.nn.Module:
        patches: Any = {"kernel_size": self.patch_size, "stride": self.patch_size, "device": device, "dtype": torch.float32}
        embedding: torch.nn.Module = operations.Conv3d(channels, self.dim, **patches)
        return embedding

    def _forward(
        self,
        x: torch.Tensor,
        timestep: torch.Tensor,
        context: torch.Tensor,
        clip_fea: torch.Tensor | None = None,
        time_dim_concat: torch.Tensor | None = None,
        transformer_options: Options | None = None,
        **kwargs: Any,
    ) -> torch.Tensor:
        """As its base class. *kwargs*: ``reference_latent`` (pictures), ``pose_latents``, and masks of figures for both, for SCAIL-2
        (``ref_mask_latents`` over pictures and video, ``sam_latents`` over the poses) with ``ref_mask_flag`` (False: figures of the poses'
        video are replaced).
        """
        options = {} if transformer_options is None else transformer_options
        frames, height, width = x.shape[2:]
        x = pad_to_patch_size(x, self.patch_size)
        if time_dim_concat is not None:
            x = torch.cat((x, pad_to_patch_size(time_dim_concat, self.patch_size)), dim=2)
        for name in ("reference_latent", "pose_latents", "ref_mask_latents", "sam_latents"):
            if kwargs.get(name) is not None:
                kwargs[name] = pad_to_patch_size(kwargs[name], self.patch_size)
        pictures = kwargs["reference_latent"].shape[2] if kwargs.get("reference_latent") is not None else 0
        pose = kwargs.get("pose_latents")
        replaced = kwargs.pop("ref_mask_flag", None) is False
        freqs = self._all_places((pictures, x.shape[2], height, width), pose, replaced, x, options)
        out = self.forward_orig(x, timestep, context, clip_fea=clip_fea, freqs=freqs, transformer_options=options, **kwargs)
        return out[:, :, pictures : pictures + frames, :height, :width]

    def _all_places(
        self, sizes: tuple[int, int, int, int], pose: torch.Tensor | None, replaced: bool, like: torch.Tensor, options: Options
    ) -> torch.Tensor:
        """The rotations of pictures, video and poses; *sizes*: pictures, frames, rows and columns of latent pixels."""
        pictures, frames, height, width = sizes
        kept: dict[str, Any] = {"device": like.device, "dtype": like.dtype}
        start = pictures
        if replaced:
            start = max(pictures - 1, 0)
            below = {"rope_options": {"shift_y": ASIDE}}
            places = [self.rope_encode(pictures, height, width, transformer_options=below, **kept)] if pictures else []
            places.append(self.rope_encode(frames, height, width, t_start=start, transformer_options=options, **kept))
        else:
            places = [self.rope_encode(pictures + frames, height, width, transformer_options=options, **kept)]
        if pose is not None:
            down, across = height / pose.shape[-2], width / pose.shape[-1]
            spread = {"scale_y": down, "scale_x": across, "shift_y": (down - 1) / 2, "shift_x": ASIDE + (across - 1) / 2}
            beside = {"rope_options": spread}
            shown, rows, columns = pose.shape[-3:]
            places.append(self.rope_encode(shown, rows, columns, t_start=start, transformer_options=beside, **kept))
        return torch.cat(places, dim=1)

    def _embedded(self, x: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        """The patches of pictures and video."""
        if kwargs.get("reference_latent") is not None:
            x = torch.cat((kwargs["reference_latent"], x), dim=2)
        return self._patches(x)

    def _beside(self, x: torch.Tensor, given: Mapping[str, Any]) -> Iterable[torch.Tensor]:
        """The patches of the poses."""
        pose = given.get("pose_latents")
        return [] if pose is None else [self.patch_embedding_pose(pose.float()).to(x.dtype)]

    def _run_blocks(
        self,
        x: torch.Tensor,
        tokens: torch.Tensor,
        embedded: torch.Tensor,
        state: Mapping[str, Any],
        leading: int,
        options: Options,
        after: After | None,
    ) -> torch.Tensor:
        """As its base class; patches are told that the video begins behind the pictures."""
        frames, rows, columns = options["grid_sizes"]
        leading += (frames - x.shape[2] // self.patch_size[0]) * rows * columns
        return super()._run_blocks(x, tokens, embedded, state, leading, options, after)


class SCAIL2WanModel(SCAILWanModel):
    """SCAIL-2, which is also told which figure of a picture is which of the poses' video."""

    FLOAT32 = (*SCAILWanModel.FLOAT32, "patch_embedding_mask.")

    def __init__(
        self,
        model_type: str = "scail2",
        in_dim: int = 20,
        mask_in_dim: int = MASK_CHANNELS,
        device: Any = None,
        dtype: torch.dtype | None = None,
        operations: Any = None,
        **sizes: Any,
    ) -> None:
        super().__init__(model_type, in_dim, device, dtype, operations, **sizes)
        self.patch_embedding_mask = self._new_patches(mask_in_dim, device, operations)

    def _embedded(self, x: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        """The patches, with the figures in the pictures."""
        cells, masks = super()._embedded(x, **kwargs), kwargs.get("ref_mask_latents")
        return cells if masks is None else cells + self.patch_embedding_mask(masks.float()).to(cells.dtype)

    def _beside(self, x: torch.Tensor, given: Mapping[str, Any]) -> Iterable[torch.Tensor]:
        """The patches of the poses, with their figures."""
        masks = given.get("sam_latents")
        poses = super()._beside(x, given)
        return poses if masks is None else [pose + self.patch_embedding_mask(masks.float()).to(pose.dtype) for pose in poses]
