"""What Wan-Animate 2's blocks are given of the pose video, kept over the steps of one sampling."""

from __future__ import annotations

from typing import Any

import torch

import comfy.model_management
import comfy.utils
from comfy.quantisation import kitchen

GROWTH = 1.5  # a further video may take so many times the memory of the largest
LARGEST_GROUP = 256  # inputs that are rotated together before they are stored in few bits
LAYOUTS = {"int8": "TensorWiseINT8Layout", "int4": "TensorCoreConvRotW4A4Layout"}


class PoseBranchCache:
    """The input of each block of the pose's stream, for one video or for each window of it, on *store_device* (None: the host).

    *dtype*: "default" keeps it as it is, "int8" and "int4" in fewer bits, for which comfy-kitchen is needed (``ValueError`` without it).
    Videos that were not used for longest go where memory is short.
    """

    def __init__(self, store_device: torch.device | str | None = None, dtype: str = "default") -> None:
        self.store_device = torch.device("cpu" if store_device is None else store_device)
        self.dtype = dtype
        self._videos: list[dict[str, Any]] = []  # the one used last at the end
        if dtype in LAYOUTS and not kitchen.is_installed():
            raise ValueError(f"the cache of poses in {dtype} needs comfy-kitchen; install it, or choose the dtype default")

    def select(self, pose_latents: torch.Tensor) -> None:
        """Turn to the video with these latents (of a batch the first counts)."""
        wanted = pose_latents[:1]
        for video in self._videos:
            known = video["latents"]
            if known.shape == wanted.shape and torch.equal(known, wanted.to(known.device)):
                self._videos.remove(video)
                self._videos.append(video)
                return
        needed = GROWTH * max((self._bytes(video) for video in self._videos), default=0)
        while self._videos and comfy.model_management.get_free_memory(self.store_device) < needed:
            self._videos.pop(0)
        self._videos.append({"latents": wanted.to(self.store_device, copy=True), "blocks": {}})

    def filled(self, num_blocks: int) -> bool:
        """Whether all blocks are known for the video turned to."""
        return bool(self._videos) and len(self._videos[-1]["blocks"]) == num_blocks

    def put(self, number: int, x_pose: torch.Tensor) -> None:
        """Keep *x_pose* (B x N x C, of which the first counts) for the block *number*."""
        kept, params = x_pose[:1], None
        if self.dtype in LAYOUTS:
            group = LARGEST_GROUP
            while group > 4 and kept.shape[-1] % group:
                group //= 4
            settings: dict[str, Any] = {"convrot_groupsize": group}
            if self.dtype == "int8":
                settings |= {"is_weight": True, "per_channel": True, "convrot": True}
            kept, params = self._layout().quantize(kept.reshape(-1, kept.shape[-1]), **settings)
            params = params.to_device(self.store_device)
        self._videos[-1]["blocks"][number] = (kept.to(self.store_device, copy=True), params, x_pose[:1].shape)

    def take(self, number: int, device: torch.device, dtype: torch.dtype, batch_size: int) -> torch.Tensor:
        """What was kept for the block *number*: B x N x C."""
        kept, params, shape = self._videos[-1]["blocks"][number]
        kept = kept.to(device)
        if params is not None:
            kept = self._layout().dequantize(kept, params.to_device(device)).reshape(shape)
        return comfy.utils.repeat_to_batch_size(kept.to(dtype), batch_size)

    def _layout(self) -> Any:
        return kitchen.layouts().get_layout_class(LAYOUTS[self.dtype])

    def free(self) -> None:
        """Forget all."""
        self._videos = []

    @staticmethod
    def _bytes(video: dict[str, Any]) -> int:
        return sum(kept.nbytes for kept, *_ in video["blocks"].values())

    def memory_bytes(self) -> int:
        """Bytes that are kept."""
        return sum(map(self._bytes, self._videos))
