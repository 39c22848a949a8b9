"""The node that makes empty latents for Chroma Radiance, which works on pixels."""

from __future__ import annotations

from comfy_api.latest import io
from comfy_extras.empty_latents import empty_latent, size_inputs
from comfy_extras.node_extension import extension_of


class EmptyChromaRadianceLatentImage(io.ComfyNode):
    """Makes empty latents."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="EmptyChromaRadianceLatentImage",
            category="model/latent/chroma radiance",
            inputs=size_inputs(1024, 1024, 16),
            outputs=[io.Latent.Output()],
        )

    @classmethod
    def execute(cls, width: int, height: int, batch_size: int = 1) -> io.NodeOutput:
        """Latents of 3 channels, a cell per pixel."""
        return io.NodeOutput(empty_latent(batch_size, 3, height, width))


comfy_entrypoint = extension_of(EmptyChromaRadianceLatentImage)
