"""What applies InfiniteTalk's model patch as a model of Wan runs: patches after attentions, and wrappers that hold the first frames."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self

import torch

from comfy.ldm.wan.model_multitalk import likeness

Arguments = dict[str, Any]
LIKENESS = "x_ref_attn_map"


class MultiTalkGetAttnMapPatch:
    """An ``attn1_patch`` that finds which person each token looks at. *ref_target_masks*: people x tokens of a frame."""

    def __init__(self, ref_target_masks: torch.Tensor) -> None:
        self.ref_target_masks = ref_target_masks

    def __call__(self, arguments: Arguments) -> Any:
        """``x`` as it is."""
        options, query = arguments["transformer_options"], arguments["q"]
        _, rows, columns = options["grid_sizes"]
        options[LIKENESS] = likeness(query, arguments["k"], rows * columns, self.ref_target_masks.to(query.device))
        return arguments["x"]


class MultiTalkCrossAttnPatch:
    """An ``attn2_patch`` that adds what is heard, *audio_scale* strong."""

    def __init__(self, model_patch: Any, audio_scale: float = 1.0) -> None:
        self.model_patch, self.audio_scale = model_patch, audio_scale

    def __call__(self, arguments: Arguments) -> Any:
        """``x`` with it."""
        options, x = arguments["transformer_options"], arguments["x"]
        block = self.model_patch.model.blocks[options["block_index"]]
        seen = options.pop(LIKENESS, None)
        heard = block.audio_cross_attn(block.norm_x(x), options["audio_embeds"], shape=options["grid_sizes"], x_ref_attn_map=seen)
        return x + heard * self.audio_scale

    def models(self) -> list[Any]:
        """The patchers that must be loaded with the model."""
        return [self.model_patch]


class _Frames:
    """A wrapper that holds the latent of a video's first frames."""

    def __init__(self, frames: torch.Tensor) -> None:
        self.frames = frames

    def to(self, device_or_dtype: torch.device | torch.dtype) -> Self:
        """Itself, with the frames on a device; a dtype changes nothing."""
        if isinstance(device_or_dtype, torch.device):
            self.frames = self.frames.to(device_or_dtype)
        return self

    def _first_in(self, latent: torch.Tensor) -> torch.Tensor:
        frames = self.frames.to(latent).expand(len(latent), -1, -1, -1, -1)
        return torch.cat((frames, latent[:, :, frames.shape[2] :]), dim=2)


class FirstFramesSeen(_Frames):
    """Around ``apply_model``: each step sees these frames first, in the model's latent space."""

    def __call__(self, executor: Callable[..., Any], x: torch.Tensor, *arguments: Any, **given: Any) -> Any:
        """The model's result for *x* with them."""
        return executor(self._first_in(x), *arguments, **given)


class FirstFramesKept(_Frames):
    """Around ``outer_sample``: the latent that is made begins with these frames."""

    def __call__(self, executor: Callable[..., Any], *arguments: Any, **given: Any) -> Any:
        """The result with them."""
        return self._first_in(executor(*arguments, **given))
