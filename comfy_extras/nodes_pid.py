"""The node that gives PiD the latent of which it makes a picture."""

from __future__ import annotations

from typing import TYPE_CHECKING

import node_helpers
from comfy.lazy_import import lazy_module
from comfy_api.latest import io
from comfy_extras.node_extension import extension_of

if TYPE_CHECKING:
    from comfy_extras.node_values import Conditioning, Latent

latent_formats = lazy_module("comfy.latent_formats")
torch = lazy_module("torch")

FORMATS = {"flux": "Flux", "sd3": "SD3", "sdxl": "SDXL", "qwenimage": "Wan21"}
FLUX2_CHANNELS = 128


class PiDConditioning(io.ComfyNode):
    """Adds a latent, as its family's networks take it, and how noisy it is."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        of = "Which family's latent it is; that of Flux.2, with its 128 channels, is told from Flux.1's."
        return io.Schema(
            node_id="PiDConditioning",
            display_name="PiD Conditioning",
            category="model/conditioning",
            description="Gives PiD the latent that it makes a larger picture of.",
            inputs=[
                io.Conditioning.Input("positive"),
                io.Latent.Input("latent", tooltip="From a sampler or a picture that was encoded."),
                io.Combo.Input("latent_format", options=list(FORMATS), default="flux", tooltip=of),
                io.Float.Input("degrade_sigma", default=0.0, min=0.0, max=1.0, step=0.01, tooltip="How much noise is left in the latent."),
            ],
            outputs=[io.Conditioning.Output()],
        )

    @classmethod
    def execute(cls, positive: Conditioning, latent: Latent, latent_format: str, degrade_sigma: float) -> io.NodeOutput:
        """*positive* with both; of a latent of a video, its first frame counts."""
        samples = latent["samples"]
        name = "Flux2" if latent_format == "flux" and samples.shape[1] == FLUX2_CHANNELS else FORMATS[latent_format]
        scaled = getattr(latent_formats, name)().process_in(samples)
        values = {"lq_latent": scaled[:, :, 0] if scaled.ndim == 5 else scaled, "degrade_sigma": torch.tensor([float(degrade_sigma)])}
        return io.NodeOutput(node_helpers.conditioning_set_values(positive, values))


comfy_entrypoint = extension_of(PiDConditioning)
