"""A node for Boogu: prompts about pictures."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from comfy_api.latest import ComfyExtension, io
from comfy_extras.fitted_pictures import with_area, with_references

if TYPE_CHECKING:
    from torch import Tensor

    from comfy.images.vae import VAE
    from comfy.text.encoder import CLIP

SEEN_SIDE, REFERENCE_SIDE = 384, 1024  # squares of as many pixels as a picture has for the text encoder, and as a reference
GRID = 16


class TextEncodeBooguEdit(io.ComfyNode):
    """Encodes an instruction about pictures, and one without them."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        pictures = io.Autogrow.TemplateNames(io.Image.Input("image"), names=[f"image_{number}" for number in range(1, 17)], min=0)
        words: dict[str, Any] = {"multiline": True, "dynamic_prompts": True}
        texts = [io.String.Input("prompt", **words), io.String.Input("negative_prompt", advanced=True, **words)]
        shown = io.Autogrow.Input("images", template=pictures, tooltip="the model was trained with one")
        return io.Schema(
            node_id="TextEncodeBooguEdit",
            category="model/conditioning/boogu",
            inputs=[io.Clip.Input("clip"), *texts, io.Vae.Input("vae"), shown],
            outputs=[io.Conditioning.Output(display_name="positive"), io.Conditioning.Output(display_name="negative")],
        )

    @classmethod
    def execute(
        cls, clip: CLIP, prompt: str, negative_prompt: str, vae: VAE | None = None, images: dict[str, Tensor | None] | None = None
    ) -> io.NodeOutput:
        """Two conditionings with the pictures' latents; the text encoder looks at the pictures for the first alone."""
        given = sorted((images or {}).items(), key=lambda one: int(one[0].rpartition("_")[2]))
        shown = [image for _, image in given if image is not None]
        seen = [with_area(image, SEEN_SIDE)[..., :3] for image in shown]
        latents = [] if vae is None else [vae.encode(with_area(image, REFERENCE_SIDE, GRID)[..., :3]) for image in shown]
        tokens = clip.tokenize(prompt, images=seen), clip.tokenize(negative_prompt)
        return io.NodeOutput(*(with_references(clip.encode_from_tokens_scheduled(one), latents) for one in tokens))


class BooguExtension(ComfyExtension):
    """The extension with this node."""

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return [TextEncodeBooguEdit]


async def comfy_entrypoint() -> BooguExtension:
    """The extension, for the pack loader."""
    return BooguExtension()
