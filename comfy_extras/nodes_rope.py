"""The node that scales and shifts the rotary positions of transformers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from comfy_api.latest import io
from comfy_extras.node_extension import extension_of

if TYPE_CHECKING:
    from comfy.model_patcher import ModelPatcher


class ScaleROPE(io.ComfyNode):
    """Scales and shifts positions along width, height and time."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        numbers = [
            one
            for axis in ("x", "y", "t")
            for one in (
                io.Float.Input(f"scale_{axis}", default=1.0, min=0.0, max=100.0, step=0.1, advanced=True),
                io.Float.Input(f"shift_{axis}", default=0.0, min=-256.0, max=256.0, step=0.1, advanced=True),
            )
        ]
        return io.Schema(
            node_id="ScaleROPE",
            category="model/patch",
            description="Scales and shifts the positions that a transformer's rotary embedding sees. A UNet has none, and stays as it is.",
            inputs=[io.Model.Input("model"), *numbers],
            outputs=[io.Model.Output()],
            is_experimental=True,
        )

    @classmethod
    def execute(
        cls, model: ModelPatcher, scale_x: float, shift_x: float, scale_y: float, shift_y: float, scale_t: float, shift_t: float
    ) -> io.NodeOutput:
        """A clone of *model*."""
        clone = model.clone()
        clone.set_model_rope_options(scale_x, shift_x, scale_y, shift_y, scale_t, shift_t)
        return io.NodeOutput(clone)


comfy_entrypoint = extension_of(ScaleROPE)
