"""Nodes that regroup lists of image or latent batches into batches of another size."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from comfy.lazy_import import lazy_module
from comfy_extras.node_inputs import socket, whole

if TYPE_CHECKING:
    from torch import Tensor

    from comfy_extras.node_values import Latent

torch = lazy_module("torch")


@dataclass(frozen=True, slots=True)
class _LatentRun:
    """Latents of one size: samples B×C×…, their noise mask B×1×H×W and their batch indices."""

    samples: Tensor
    mask: Tensor
    batch_index: list[int]

    @classmethod
    def of(cls, latent: dict[str, Any], first_index: int) -> _LatentRun:
        samples = latent["samples"]
        count = samples.shape[0]
        mask = latent.get("noise_mask")
        if mask is None:
            mask = torch.ones((count, 1, samples.shape[2] * 8, samples.shape[3] * 8), device="cpu")
        elif mask.shape[0] < count:
            mask = mask.repeat((count - 1) // mask.shape[0] + 1, *[1] * (mask.ndim - 1))[:count]
        return cls(samples, mask, list(latent.get("batch_index", range(first_index, first_index + count))))

    def followed_by(self, other: _LatentRun) -> _LatentRun:
        return _LatentRun(
            torch.cat((self.samples, other.samples)), torch.cat((self.mask, other.mask)), self.batch_index + other.batch_index
        )

    def fits(self, other: _LatentRun) -> bool:
        return self.samples.shape[1:] == other.samples.shape[1:] and self.mask.shape[1:] == other.mask.shape[1:]

    def latents(self, batch_size: int) -> Iterator[dict[str, Any]]:
        for start in range(0, self.samples.shape[0], batch_size):
            cut = slice(start, start + batch_size)
            mask = self.mask[cut]
            masked = {} if mask.mean() == 1.0 else {"noise_mask": mask}  # a mask of ones has no effect
            yield {"samples": self.samples[cut], **masked, "batch_index": self.batch_index[cut]}


class LatentRebatch:
    """Regroups a list of latents into batches of one length; latents of different sizes never share a batch."""

    INPUT_IS_LIST = True
    RETURN_TYPES = ("LATENT",)
    OUTPUT_IS_LIST = (True,)
    FUNCTION = "rebatch"
    CATEGORY = "model/latent/batch"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"latents": socket("LATENT"), "batch_size": whole(1, 1, 4096)}}

    @classmethod
    def rebatch(cls, latents: list[Latent], batch_size: list[int]) -> tuple[list[Latent]]:
        """The latents in order, regrouped. ``batch_index`` counts through the list where entries do not have their own."""
        runs: list[_LatentRun] = []
        seen = 0
        for latent in latents:
            run = _LatentRun.of(latent, seen)
            seen += len(run.batch_index)
            if runs and runs[-1].fits(run):
                runs[-1] = runs[-1].followed_by(run)
            else:
                runs.append(run)
        return ([latent for run in runs for latent in run.latents(batch_size[0])],)


class ImageRebatch:
    """Regroups a list of image batches into batches of one length."""

    INPUT_IS_LIST = True
    RETURN_TYPES = ("IMAGE",)
    OUTPUT_IS_LIST = (True,)
    FUNCTION = "rebatch"
    CATEGORY = "image/batch"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"images": socket("IMAGE"), "batch_size": whole(1, 1, 4096)}}

    @classmethod
    def rebatch(cls, images: list[Tensor], batch_size: list[int]) -> tuple[list[Tensor]]:
        """The images in order, regrouped; the last batch may be smaller."""
        single = [image[index : index + 1] for image in images for index in range(image.shape[0])]
        return ([torch.cat(single[start : start + batch_size[0]], dim=0) for start in range(0, len(single), batch_size[0])],)


NODE_CLASS_MAPPINGS = {"RebatchLatents": LatentRebatch, "RebatchImages": ImageRebatch}

NODE_DISPLAY_NAME_MAPPINGS = {"RebatchLatents": "Rebatch Latents", "RebatchImages": "Rebatch Images"}
