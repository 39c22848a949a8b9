"""Sampling under a mask: the protected part gets noise like the rest, and is put back into the result of every step."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from comfy.interruption import interrupt_flag

if TYPE_CHECKING:
    from torch import Tensor

    from comfy.sampling.protocols import GuidedModel, NoiseNames, Options


class KSamplerX0Inpaint:
    """The model as samplers call it. It restores what the mask protects and stops when the user interrupts.

    ``noise`` and ``latent_image`` must be set before the first call. ``noise_names`` is the module in which solvers look up kinds of noise
    (None: their own).
    """

    noise: Tensor
    latent_image: Any  # a tensor, or None without a mask

    def __init__(self, model: GuidedModel, sigmas: Tensor) -> None:
        self.inner_model = model
        self.sigmas = sigmas
        self.noise_names: NoiseNames | None = None

    def __call__(
        self, x: Tensor, sigma: Tensor, denoise_mask: Tensor | None, model_options: Options | None = None, seed: int | None = None
    ) -> Tensor:
        """The denoised latent for *x* (B×C×spatial) at *sigma* (B); the original where *denoise_mask* is 0.

        Raises ``InterruptProcessingException``.
        """
        interrupt_flag.raise_if_set()
        options = {} if model_options is None else model_options
        if denoise_mask is None:
            return self.inner_model(x, sigma, model_options=options, seed=seed)
        if "denoise_mask_function" in options:
            denoise_mask = options["denoise_mask_function"](
                sigma, denoise_mask, extra_options={"model": self.inner_model, "sigmas": self.sigmas}
            )
        kept_mask = 1.0 - denoise_mask
        kept = self.inner_model.inner_model.scale_latent_inpaint(
            x=x, sigma=sigma, noise=self.noise, latent_image=self.latent_image, denoise_mask=denoise_mask
        )
        out = self.inner_model(x * denoise_mask + kept * kept_mask, sigma, model_options=options, seed=seed)
        return out * denoise_mask + self.latent_image * kept_mask
