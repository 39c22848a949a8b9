"""Wan 2.2's Animate, the first: a figure that moves as poses in a video, with the face of another, on a background that may be given.

The figure's picture is one more latent frame before the video, which the caller cuts off.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from comfy.ldm.common_dit import pad_to_patch_size
from comfy.ldm.wan.expressions import WIDTHS, FaceAdapter, FaceEncoder, Generator
from comfy.ldm.wan.model import After, WanModel
from comfy.placeholders import placeholders

__all__ = ["AnimateWanModel", "FaceAdapter", "FaceEncoder", "Generator"]

EVERY = 5  # after the first of so many blocks, the video's tokens attend to the face
FACES = 8  # pictures of it that are looked at together

__getattr__, __dir__ = placeholders(
    __name__,
    "Wan models",
    "CausalConv1d=comfy.ldm.wan.hearing FaceBlock=comfy.ldm.wan.expressions FusedLeakyReLU=comfy.ldm.wan.expressions "
    "Blur=comfy.ldm.wan.expressions ConvLayer=comfy.ldm.wan.expressions ResBlock=comfy.ldm.wan.expressions "
    "EncoderApp=comfy.ldm.wan.expressions Encoder=comfy.ldm.wan.expressions Direction=comfy.ldm.wan.expressions "
    "Synthesis=comfy.ldm.wan.expressions get_norm_layer() upfirdn2d_native() upfirdn2d() fused_leaky_relu() ScaledLeakyReLU "
    "EqualConv2d EqualLinear",
)


class AnimateWanModel(WanModel):
    """The network. *motion_encoder_dim*: values of a face's motion; *style_dim*, *motion_dim*, *motion_widths* and *face_dim*: what lies
    between a face's picture, these, and the tokens made of them.
    """

    def __init__(
        self,
        model_type: str = "animate",
        *,
        motion_encoder_dim: int = 512,
        style_dim: int = 512,
        motion_dim: int = 20,
        motion_widths: Sequence[int] = WIDTHS,
        face_dim: int = 1024,
        face_heads: int = 4,
        device: Any = None,
        dtype: torch.dtype | None = None,
        operations: Any = None,
        **sizes: Any,
    ) -> None:
        kept: dict[str, Any] = {"device": device, "dtype": dtype, "operations": operations}
        super().__init__("i2v", **kept, **sizes)
        patch: Any = {"kernel_size": self.patch_size, "stride": self.patch_size, "device": device, "dtype": dtype}
        self.pose_patch_embedding = operations.Conv3d(self.out_dim, self.dim, **patch)
        self.motion_encoder = Generator(style_dim, motion_dim, motion_encoder_dim, motion_widths, **kept)
        self.face_adapter = FaceAdapter(self.dim, self.num_heads, self.num_layers // EVERY, **kept)
        self.face_encoder = FaceEncoder(motion_encoder_dim, self.dim, face_heads, face_dim, **kept)

    def _embedded(self, x: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        """The patches, with the poses' from the second frame on (``pose_latents``, as the latents of a video)."""
        cells, pose = self._patches(x), kwargs.get("pose_latents")
        if pose is not None:
            shown = self.pose_patch_embedding(pad_to_patch_size(pose, self.patch_size))[:, :, : cells.shape[2] - 1]
            cells[:, :, 1 : 1 + shown.shape[2]] += shown
        return cells

    def _second_stream(
        self, tokens: torch.Tensor, state: Mapping[str, Any], options: dict[str, Any], given: Mapping[str, Any]
    ) -> After | None:
        """The face is looked at after every few blocks (``face_pixel_values``: B x 3 x frames x 512 x 512 in -1…1)."""
        if given.get("face_pixel_values") is None:
            return None
        faces, blocks = self._faces(given["face_pixel_values"], options["grid_sizes"][0]), self.face_adapter.fuser_blocks

        def after(number: int, x: torch.Tensor) -> torch.Tensor:
            own, between = divmod(number, EVERY)
            return x if between or own >= len(blocks) else x + blocks[own](x, faces)

        return after

    def _faces(self, pictures: torch.Tensor, frames: int) -> torch.Tensor:
        """The tokens of a face for each of *frames* latent frames; zeros for the first, and for those after the face's last one."""
        moved = [self.motion_encoder.get_motion(some) for some in pictures.movedim(2, 1).flatten(0, 1).split(FACES)]
        tokens = self.face_encoder(torch.cat(moved).unflatten(0, (len(pictures), -1)))
        return torch.nn.functional.pad(tokens, (0, 0, 0, 0, 1, max(0, frames - 1 - tokens.shape[1])))[:, :frames]
