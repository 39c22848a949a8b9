"""The node that prepares Stable Diffusion's 4x upscaler."""

from __future__ import annotations

from typing import TYPE_CHECKING

import comfy.utils
import node_helpers
from comfy.lazy_import import lazy_module
from comfy_api.latest import ComfyExtension, io

if TYPE_CHECKING:
    from torch import Tensor

    from comfy_extras.node_values import Conditioning

torch = lazy_module("torch")

FACTOR = 4  # a latent of the upscaler is as large as the picture it starts from
LATENT_CHANNELS = 4


class SD_4XUpscale_Conditioning(io.ComfyNode):  # noqa: N801 - ComfyUI's name
    """Tells the upscaler which pictures to enlarge, and how much noise they are taken to have."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SD_4XUpscale_Conditioning",
            category="model/conditioning/stable diffusion upscaler",
            inputs=[
                io.Image.Input("images"),
                *(io.Conditioning.Input(name) for name in ("positive", "negative")),
                io.Float.Input("scale_ratio", default=4.0, min=0.0, max=10.0, step=0.01),
                io.Float.Input("noise_augmentation", default=0.0, min=0.0, max=1.0, step=0.001, advanced=True),
            ],
            outputs=[
                *(io.Conditioning.Output(display_name=name) for name in ("positive", "negative")),
                io.Latent.Output(display_name="latent"),
            ],
        )

    @classmethod
    def execute(
        cls, images: Tensor, positive: Conditioning, negative: Conditioning, scale_ratio: float, noise_augmentation: float
    ) -> io.NodeOutput:
        """Both conditionings with the pictures (-1…1), and an empty latent. Raises ``ValueError`` where nothing would be left of them."""
        width, height = (max(1, round(images.shape[axis] * scale_ratio)) // FACTOR for axis in (-2, -3))
        if not (width and height):
            raise ValueError(f"scale_ratio {scale_ratio} makes the images smaller than {FACTOR} pixels; raise it")
        pixels = comfy.utils.common_upscale(images.movedim(-1, 1) * 2.0 - 1.0, width, height, "bilinear", "center")
        values = {"concat_image": pixels, "noise_augmentation": noise_augmentation}
        told = (node_helpers.conditioning_set_values(conditioning, values) for conditioning in (positive, negative))
        return io.NodeOutput(*told, {"samples": torch.zeros(len(images), LATENT_CHANNELS, height, width)})


class SdUpscaleExtension(ComfyExtension):
    """The node of this module."""

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        """The node classes."""
        return [SD_4XUpscale_Conditioning]


async def comfy_entrypoint() -> SdUpscaleExtension:
    """What the server loads."""
    return SdUpscaleExtension()
