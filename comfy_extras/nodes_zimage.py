"""The node for Z-Image omni: prompts about pictures."""

from __future__ import annotations

from typing import TYPE_CHECKING

import node_helpers
from comfy_api.latest import ComfyExtension, io
from comfy_extras.fitted_pictures import with_area

if TYPE_CHECKING:
    from torch import Tensor

    from comfy.clip_vision import ClipVisionModel
    from comfy.images.vae import VAE
    from comfy.text.encoder import CLIP

REFERENCE_SIDE = 1024
PICTURES = ("image1", "image2", "image3")


def _texts_between(pictures: int) -> list[str]:
    """What the conversation says before, between and behind so many pictures."""
    between = ["<|vision_end|><|vision_start|>"] * (pictures - 1)
    return ["<|im_start|>user\n<|vision_start|>", *between, "<|vision_end|><|im_end|>"]


ABOUT_PICTURES = "<|vision_end|>{}<|im_end|>\n<|im_start|>assistant\n<|vision_start|>"


class TextEncodeZImageOmni(io.ComfyNode):
    """Encodes a prompt about up to three pictures."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="TextEncodeZImageOmni",
            category="model/conditioning/z-image",
            is_experimental=True,
            inputs=_inputs(),
            outputs=[io.Conditioning.Output()],
        )

    @classmethod
    def execute(
        cls,
        clip: CLIP,
        prompt: str,
        image_encoder: ClipVisionModel | None = None,
        auto_resize_images: bool = True,
        vae: VAE | None = None,
        image1: Tensor | None = None,
        image2: Tensor | None = None,
        image3: Tensor | None = None,
    ) -> io.NodeOutput:
        """Conditioning with the pictures' latents (by *vae*), with what *image_encoder* saw, and with the words around them."""
        images = [image for image in (image1, image2, image3) if image is not None]
        found = {
            "reference_latents": [] if vae is None else [vae.encode(_fitted(image, auto_resize_images)) for image in images],
            "clip_vision_outputs": [] if image_encoder is None else [image_encoder.encode_image(image) for image in images],
        }
        tokens = clip.tokenize(prompt, llama_template=ABOUT_PICTURES if images else None)
        conditioning = clip.encode_from_tokens_scheduled(tokens)
        found["reference_latents_text_embeds"] = [
            clip.encode_from_tokens_scheduled(clip.tokenize(text, llama_template="{}"))[0][0]
            for text in (_texts_between(len(images)) if images else ())
        ]
        for name, values in found.items():
            if values:
                conditioning = node_helpers.conditioning_set_values(conditioning, {name: values}, append=True)
        return io.NodeOutput(conditioning)


def _inputs() -> list[io.Input]:
    texts = io.Clip.Input("clip"), io.ClipVision.Input("image_encoder", optional=True)
    prompt = io.String.Input("prompt", multiline=True, dynamic_prompts=True)
    resize = io.Boolean.Input("auto_resize_images", default=True, advanced=True)
    return [*texts, prompt, resize, io.Vae.Input("vae", optional=True), *(io.Image.Input(name, optional=True) for name in PICTURES)]


def _fitted(image: Tensor, resize: bool) -> Tensor:
    return with_area(image, REFERENCE_SIDE, 8) if resize else image


class ZImageExtension(ComfyExtension):
    """The extension with this node."""

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return [TextEncodeZImageOmni]


async def comfy_entrypoint() -> ZImageExtension:
    """The extension, for the pack loader."""
    return ZImageExtension()
