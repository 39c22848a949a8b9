"""The base class of samplers: what a guider runs."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from comfy.sampling.protocols import GuidedModel, Options


class Sampler:
    """What a guider runs. Subclasses implement :meth:`sample`."""

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
        """The sampled latent; *model_wrap* is the guider."""
        raise NotImplementedError(f"{type(self).__name__} must define sample()")

    def max_denoise(self, model_wrap: GuidedModel, sigmas: Tensor) -> bool:
        """Whether *sigmas* start at or above the model's highest level, so that nothing of a given latent is left."""
        highest, first = float(model_wrap.inner_model.model_sampling.sigma_max), float(sigmas[0])
        return first > highest or math.isclose(highest, first, rel_tol=1e-5)
