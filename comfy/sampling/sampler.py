"""The base class of samplers, which guiders run."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from comfy.sampling.protocols import GuidedModel, Options


class Sampler:
    """Walks a guider down a list of sigmas. Subclasses implement :meth:`sample`."""

    def sample(
        self,
        model_wrap: GuidedModel,
        sigmas: Tensor,
        extra_args: Options,
        callback: Callable[..., None] | None,
        noise: Tensor,
        latent_image: Tensor | None = None,
        denoise_mask: Tensor | None = None,
        disable_pbar: bool = False,
    ) -> Tensor:
        """Sample with the guider *model_wrap* over descending *sigmas*; returns the latent, shaped like *noise* (B×C×spatial).

        *extra_args* (``model_options``, ``seed``) go to every call of the guider; *callback* gets (step, denoised latent, latent, steps).
        """
        raise NotImplementedError(f"{type(self).__name__} must define sample()")

    def max_denoise(self, model_wrap: GuidedModel, sigmas: Tensor) -> bool:
        """Whether *sigmas* start at or above the model's highest level, where nothing of the given latent is left."""
        highest, first = float(model_wrap.inner_model.model_sampling.sigma_max), float(sigmas[0])
        return first > highest or math.isclose(highest, first, rel_tol=1e-5)
