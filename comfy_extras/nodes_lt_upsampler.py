"""The node that enlarges LTX's latents by a model."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from comfy import model_management
from comfy.lazy_import import lazy_module
from comfy_api.latest import io
from comfy_extras.node_extension import extension_of

if TYPE_CHECKING:
    from comfy.images.vae import VAE
    from comfy_extras.node_values import Latent

torch = lazy_module("torch")

BYTES_PER_NUMBER = 3000  # of working memory, for each number of the latent


class LTXVLatentUpsampler(io.ComfyNode):
    """Enlarges an LTX video's latent by a model."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LTXVLatentUpsampler",
            category="model/latent/ltxv",
            is_experimental=True,
            inputs=[io.Latent.Input("samples"), io.LatentUpscaleModel.Input("upscale_model"), io.Vae.Input("vae")],
            outputs=[io.Latent.Output()],
        )

    @classmethod
    def execute(cls, samples: Latent, upscale_model: Any, vae: VAE) -> io.NodeOutput:
        """The latent as the model enlarges it, without a mask; *vae* knows how it is scaled. Raises ``ValueError`` for others' models."""
        statistics = getattr(vae.first_stage_model, "per_channel_statistics", None)
        if statistics is None or not hasattr(upscale_model, "load_device") or not hasattr(upscale_model, "model_dtype"):
            raise ValueError("this node enlarges LTX's latents: connect LTX's latent upscale model, and the VAE of LTX's videos")
        latent = samples["samples"]
        model_management.load_models_gpu([upscale_model], memory_required=math.prod(latent.shape) * BYTES_PER_NUMBER)
        given = statistics.un_normalize(latent.to(dtype=upscale_model.model_dtype(), device=upscale_model.load_device))
        larger = statistics.normalize(upscale_model.model(given)).to(dtype=latent.dtype, device=model_management.intermediate_device())
        kept = {name: value for name, value in samples.items() if name != "noise_mask"}
        return io.NodeOutput({**kept, "samples": larger})

    upsample_latent = execute


comfy_entrypoint = extension_of(LTXVLatentUpsampler)
