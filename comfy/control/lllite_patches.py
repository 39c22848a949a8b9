"""What applies LLLite as Anima runs: it reads its picture once per step, and corrects what goes into layers of each block."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

import comfy.utils
from comfy.control.model_patches import Arguments, PatchOfNetwork
from comfy.ldm.anima.lllite import WITH_MASK

SIDE = 8  # pixels of a latent pixel
KEPT = "model_patch_data"  # of transformer_options: what patches read, for one step


class AnimaLLLitePatch(PatchOfNetwork):
    """Before the first block: reads *image* (B x height x width x 3), and *mask* (B x height x width, 1 where to paint) where the file
    takes one. It acts between two levels of noise."""

    def __init__(
        self, model_patch: Any, image: torch.Tensor, mask: torch.Tensor | None, strength: float, sigma_start: float, sigma_end: float
    ) -> None:
        super().__init__(model_patch)
        self.image, self.mask = image, mask
        self.strength, self.sigma_start, self.sigma_end = strength, sigma_start, sigma_end

    def __call__(self, args: Arguments) -> Arguments:
        """*args* of a ``post_input`` patch. Raises ``ValueError`` for a video."""
        x, options = args["x"], args["transformer_options"]
        sigmas = options.get("sigmas")
        if self.strength == 0 or (sigmas is not None and not self.sigma_end <= float(sigmas.max()) <= self.sigma_start):
            return args
        if x.shape[2] != 1:
            raise ValueError(f"{self.model_patch.model.source_name} corrects pictures; this latent has {x.shape[2]} frames")
        options[KEPT][self] = self.model_patch.model.encode_conditioning(self._picture(x))
        return args

    def _picture(self, x: torch.Tensor) -> torch.Tensor:
        """The picture, and its mask, as the network takes them, at the size of the latent *x*."""
        size = x.shape[-1] * SIDE, x.shape[-2] * SIDE
        pixels = comfy.utils.common_upscale(self.image.movedim(-1, 1), *size, "bicubic", crop="center").clamp(0, 1).to(x) * 2 - 1
        if self.mask is None:
            return pixels
        mask = comfy.utils.common_upscale(self.mask.reshape(-1, 1, *self.mask.shape[-2:]).float(), *size, "nearest-exact", crop="center")
        if len(pixels) % len(mask):
            raise ValueError(f"there are {len(mask)} masks for {len(pixels)} pictures; give one, or one for each")
        painted = (mask.repeat(len(pixels) // len(mask), 1, 1, 1) >= 0.5).to(x)
        if self.model_patch.model.inpaint_masked_input:
            pixels = pixels * (1 - painted)
        return torch.cat((pixels, painted * 2 - 1), dim=1)


class _Correction:
    """A patch that applies what *patch* read."""

    def __init__(self, patch: AnimaLLLitePatch) -> None:
        self.patch = patch

    def corrected(self, x: torch.Tensor, options: Mapping[str, Any], target: str) -> torch.Tensor:
        """*x*, or, where something was read, what the network makes of it for the layer *target*."""
        seen = options.get(KEPT, {}).get(self.patch)
        if seen is None:
            return x
        corrected: torch.Tensor = self.patch.model_patch.model.apply(x, seen, options["block_index"], target, self.patch.strength)
        return corrected


class AnimaLLLiteAttentionPatch(_Correction):
    """Before attention: *targets* names the layers whose inputs, "q", "k" and "v", are corrected."""

    def __init__(self, patch: AnimaLLLitePatch, targets: Mapping[str, str]) -> None:
        super().__init__(patch)
        self.targets = targets

    def __call__(
        self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, pe: Any = None, attn_mask: Any = None, extra_options: Any = None
    ) -> Arguments:
        """What the layers get."""
        given = {"q": q, "k": k, "v": v}
        corrected = {name: self.corrected(given[name], extra_options, target) for name, target in self.targets.items()}
        return {**given, **corrected, "pe": pe, "attn_mask": attn_mask}


class AnimaLLLiteMLPPatch(_Correction):
    """Before the wider layer."""

    def __call__(self, args: Arguments) -> Arguments:
        """*args* of an ``mlp_patch``, with what the layer gets."""
        return {**args, "x": self.corrected(args["x"], args["transformer_options"], "mlp_layer1")}


def has_mask(network: Any) -> bool:
    """Whether *network* takes a mask beside the picture."""
    return bool(network.cond_in_channels == WITH_MASK)
