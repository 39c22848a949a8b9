"""A node for Mage-Flow: prompts about pictures."""

from __future__ import annotations

from typing import TYPE_CHECKING

import comfy.utils
import node_helpers
from comfy import model_management
from comfy.lazy_import import lazy_module
from comfy_api.latest import ComfyExtension, io

if TYPE_CHECKING:
    from torch import Tensor

    from comfy.images.vae import VAE
    from comfy.text.encoder import CLIP

torch = lazy_module("torch")

SEEN_SIDE = 384  # pixels of the longer side that the text encoder sees at most
OWN_SIDE = 1024  # pixels, where no picture says how many
CELL = 16


class TextEncodeMageFlowEdit(io.ComfyNode):
    """Encodes two instructions about pictures."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        pictures = io.Autogrow.TemplateNames(io.Image.Input("image"), names=[f"image_{number}" for number in range(1, 17)], min=0)
        sides = [
            io.Int.Input(side, default=0, min=0, max=8192, step=CELL, tooltip="0: as the first picture") for side in ("width", "height")
        ]
        return io.Schema(
            node_id="TextEncodeMageFlowEdit",
            category="model/conditioning/mage",
            description="The model looks at all pictures at the size of the one that it makes; sample with the latent that comes out.",
            inputs=[
                io.Clip.Input("clip"),
                io.String.Input("prompt", multiline=True, dynamic_prompts=True),
                io.String.Input("negative_prompt", multiline=True, dynamic_prompts=True, advanced=True),
                io.Vae.Input("vae", optional=True),
                io.Autogrow.Input("images", template=pictures),
                *sides,
                io.Int.Input("batch_size", default=1, min=1, max=4096),
            ],
            outputs=[
                io.Conditioning.Output(display_name="positive"),
                io.Conditioning.Output(display_name="negative"),
                io.Latent.Output(display_name="latent"),
            ],
        )

    @classmethod
    def execute(
        cls,
        clip: CLIP,
        prompt: str,
        negative_prompt: str = "",
        vae: VAE | None = None,
        images: dict[str, Tensor | None] | None = None,
        width: int = 0,
        height: int = 0,
        batch_size: int = 1,
    ) -> io.NodeOutput:
        """Two conditionings that know the pictures, with *vae* also their latents; and zeros of 128 channels, a cell per 16×16 pixels."""
        given = sorted((images or {}).items(), key=lambda one: int(one[0].rpartition("_")[2]))
        shown = [image for _, image in given if image is not None]
        own = shown[0].shape[1:3] if shown else (OWN_SIDE, OWN_SIDE)
        high, wide = (max(CELL, (asked or found) // CELL * CELL) for asked, found in zip((height, width), own))
        latents = [] if vae is None else [vae.encode(_resized(image, wide, high)[..., :3]) for image in shown]
        seen = [_as_seen(image) for image in shown]
        encoded = []
        for text in (prompt, negative_prompt or " "):
            conditioning = clip.encode_from_tokens_scheduled(clip.tokenize(text, images=seen))
            if latents:
                conditioning = node_helpers.conditioning_set_values(conditioning, {"reference_latents": latents}, append=True)
            encoded.append(conditioning)
        empty = torch.zeros((batch_size, 128, high // CELL, wide // CELL), device=model_management.intermediate_device())
        return io.NodeOutput(*encoded, {"samples": empty})


def _resized(image: Tensor, width: int, height: int) -> Tensor:
    """*image* (B x height x width x channels) at another size."""
    if image.shape[1:3] == (height, width):
        return image
    resized: Tensor = comfy.utils.common_upscale(image.movedim(-1, 1), width, height, "bicubic", "disabled")
    return resized.movedim(1, -1)


def _as_seen(image: Tensor) -> Tensor:
    """*image*, smaller where its longer side is more than the text encoder was trained with."""
    height, width = image.shape[1:3]
    shrink = min(1.0, SEEN_SIDE / max(height, width))
    return _resized(image, max(1, round(width * shrink)), max(1, round(height * shrink)))


class MageExtension(ComfyExtension):
    """The extension with this node."""

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return [TextEncodeMageFlowEdit]


async def comfy_entrypoint() -> MageExtension:
    """The extension, for the pack loader."""
    return MageExtension()
