"""The node that reads a mask's levels as the moment from which a place may change (Levin and Fried 2023, arXiv:2306.00950)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from comfy_api.latest import io

if TYPE_CHECKING:
    from torch import Tensor

    from comfy.model_patcher import ModelPatcher


class DifferentialDiffusion(io.ComfyNode):
    """Lets each place change from the step on that its level in the noise mask says."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DifferentialDiffusion",
            display_name="Differential Diffusion",
            category="experimental",
            search_aliases=["inpaint gradient", "variable denoise strength"],
            inputs=[io.Model.Input("model"), io.Float.Input("strength", default=1.0, min=0.0, max=1.0, step=0.01, optional=True)],
            outputs=[io.Model.Output()],
            is_experimental=True,
        )

    @classmethod
    def execute(cls, model: ModelPatcher, strength: float = 1.0) -> io.NodeOutput:
        """A clone of *model*; below 1 *strength* mixes the mask's own levels in."""

        def mask_of_step(sigma: Tensor, denoise_mask: Tensor, extra_options: dict[str, Any]) -> Tensor:
            return cls.forward(sigma, denoise_mask, extra_options, strength=strength)

        clone = model.clone()
        clone.set_model_denoise_mask_function(mask_of_step)
        return io.NodeOutput(clone)

    @classmethod
    def forward(cls, sigma: Tensor, denoise_mask: Tensor, extra_options: dict[str, Any], strength: float) -> Tensor:
        """1 where *denoise_mask* is at least the share of the schedule that is left at *sigma*, else 0; shaped like the mask."""
        sampling = extra_options["model"].inner_model.model_sampling
        sigmas = extra_options["sigmas"]
        first, last, now = (sampling.timestep(at) for at in (sigmas[0], max(sigmas[-1], sampling.sigma_min), sigma[0]))
        open_mask = (denoise_mask >= (now - last) / (first - last)).to(denoise_mask.dtype)
        if not 0 < strength < 1:
            return open_mask
        return strength * open_mask + (1 - strength) * denoise_mask


NODE_CLASS_MAPPINGS = {"DifferentialDiffusion": DifferentialDiffusion}
NODE_DISPLAY_NAME_MAPPINGS = {"DifferentialDiffusion": "Differential Diffusion"}
