"""The node that makes empty latents for HiDream-O1, which works on pixels."""

from __future__ import annotations

from comfy_api.latest import io
from comfy_extras.empty_latents import empty_latent, size_inputs
from comfy_extras.node_extension import extension_of


class EmptyHiDreamO1LatentImage(io.ComfyNode):
    """Makes empty latents."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="EmptyHiDreamO1LatentImage",
            display_name="Empty HiDream-O1 Latent Image",
            category="model/latent/hidream",
            description="Empty pixels for HiDream-O1. It was trained on about 4 megapixels (2048×2048, 2304×1728, 2560×1440, 2496×1664, "
            "3104×1312, 2304×1792, and upright); smaller pictures lose quality.",
            inputs=size_inputs(2048, 2048, 32, 64, highest=4096, max_batch=64),
            outputs=[io.Latent.Output()],
        )

    @classmethod
    def execute(cls, width: int, height: int, batch_size: int = 1) -> io.NodeOutput:
        """Latents of 3 channels, a cell per pixel."""
        return io.NodeOutput(empty_latent(batch_size, 3, height, width))


comfy_entrypoint = extension_of(EmptyHiDreamO1LatentImage)
