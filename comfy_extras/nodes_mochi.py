"""The node that makes empty latents for Mochi's videos."""

from __future__ import annotations

from comfy_api.latest import io
from comfy_extras.empty_latents import empty_latent, size_inputs
from comfy_extras.node_extension import extension_of

FRAMES_PER_CELL = 6


class EmptyMochiLatentVideo(io.ComfyNode):
    """Makes empty latents."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="EmptyMochiLatentVideo",
            category="model/latent/mochi",
            inputs=size_inputs(848, 480, 16, length=(25, 7, 6)),
            outputs=[io.Latent.Output()],
        )

    @classmethod
    def execute(cls, width: int, height: int, length: int, batch_size: int = 1) -> io.NodeOutput:
        """Latents of 12 channels, a cell per 8×8 pixels and 6 frames (the first frame has one of its own)."""
        return io.NodeOutput(empty_latent(batch_size, 12, (length - 1) // FRAMES_PER_CELL + 1, height // 8, width // 8))


comfy_entrypoint = extension_of(EmptyMochiLatentVideo)
