"""Nodes for Qwen-Image: prompts about pictures, and empty latents of several layers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import node_helpers
from comfy import model_management
from comfy.lazy_import import lazy_module
from comfy.text.qwen.conversations import ABOUT_PICTURES, ONE_PICTURE
from comfy_api.latest import ComfyExtension, io
from comfy_extras.fitted_pictures import with_area
from comfy_extras.node_inputs import MAX_RESOLUTION

if TYPE_CHECKING:
    from torch import Tensor

    from comfy.images.vae import VAE
    from comfy.text.encoder import CLIP

torch = lazy_module("torch")

CATEGORY = "model/conditioning/qwen image"
SEEN_SIDE, REFERENCE_SIDE = 384, 1024  # squares of as many pixels as a picture has for the text encoder, and as a reference
PICTURE = f"Picture {{}}: {ONE_PICTURE}"


def _inputs(*pictures: str) -> list[io.Input]:
    return [
        io.Clip.Input("clip"),
        io.String.Input("prompt", multiline=True, dynamic_prompts=True),
        io.Vae.Input("vae", optional=True),
        *(io.Image.Input(name, optional=True) for name in pictures),
    ]


def _with_references(conditioning: Any, latents: list[Tensor]) -> Any:
    if not latents:
        return conditioning
    return node_helpers.conditioning_set_values(conditioning, {"reference_latents": latents}, append=True)


class TextEncodeQwenImageEdit(io.ComfyNode):
    """Encodes an instruction about one picture."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(node_id="TextEncodeQwenImageEdit", category=CATEGORY, inputs=_inputs("image"), outputs=[io.Conditioning.Output()])

    @classmethod
    def execute(cls, clip: CLIP, prompt: str, vae: VAE | None = None, image: Tensor | None = None) -> io.NodeOutput:
        """Conditioning that knows the picture; with *vae* also its latent. Both see it with about a million pixels."""
        images, latents = [], []
        if image is not None:
            fitted = with_area(image, REFERENCE_SIDE)[..., :3]
            images.append(fitted)
            if vae is not None:
                latents.append(vae.encode(fitted))
        conditioning = clip.encode_from_tokens_scheduled(clip.tokenize(prompt, images=images))
        return io.NodeOutput(_with_references(conditioning, latents))


class TextEncodeQwenImageEditPlus(io.ComfyNode):
    """Encodes an instruction about up to three pictures."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="TextEncodeQwenImageEditPlus",
            category=CATEGORY,
            inputs=_inputs("image1", "image2", "image3"),
            outputs=[io.Conditioning.Output()],
        )

    @classmethod
    def execute(
        cls,
        clip: CLIP,
        prompt: str,
        vae: VAE | None = None,
        image1: Tensor | None = None,
        image2: Tensor | None = None,
        image3: Tensor | None = None,
    ) -> io.NodeOutput:
        """Conditioning that knows the pictures by their numbers; with *vae* also their latents. The text encoder sees them smaller."""
        seen, latents, marks = [], [], ""
        for number, image in enumerate((image1, image2, image3), 1):
            if image is None:
                continue
            seen.append(with_area(image, SEEN_SIDE))
            marks += PICTURE.format(number)
            if vae is not None:
                latents.append(vae.encode(with_area(image, REFERENCE_SIDE, 8)[..., :3]))
        tokens = clip.tokenize(marks + prompt, images=seen, llama_template=ABOUT_PICTURES)
        return io.NodeOutput(_with_references(clip.encode_from_tokens_scheduled(tokens), latents))


class EmptyQwenImageLayeredLatentImage(io.ComfyNode):
    """Makes empty latents for a picture taken apart into layers."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        sizes = [io.Int.Input(name, default=640, min=16, max=MAX_RESOLUTION, step=16) for name in ("width", "height")]
        return io.Schema(
            node_id="EmptyQwenImageLayeredLatentImage",
            display_name="Empty Qwen Image Layered Latent",
            category="model/latent/qwen",
            inputs=[
                *sizes,
                io.Int.Input("layers", default=3, min=0, max=MAX_RESOLUTION, step=1),
                io.Int.Input("batch_size", default=1, min=1, max=4096),
            ],
            outputs=[io.Latent.Output()],
        )

    @classmethod
    def execute(cls, width: int, height: int, layers: int, batch_size: int = 1) -> io.NodeOutput:
        """Zeros of 16 channels: a frame for the whole picture and one per layer, a cell per 8×8 pixels."""
        samples = torch.zeros((batch_size, 16, layers + 1, height // 8, width // 8), device=model_management.intermediate_device())
        return io.NodeOutput({"samples": samples})


class QwenExtension(ComfyExtension):
    """The extension with these nodes."""

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return [TextEncodeQwenImageEdit, TextEncodeQwenImageEditPlus, EmptyQwenImageLayeredLatentImage]


async def comfy_entrypoint() -> QwenExtension:
    """The extension, for the pack loader."""
    return QwenExtension()
