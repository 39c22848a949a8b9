"""Nodes for Qwen-Image: prompts about pictures, and empty latents of several layers."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import comfy.utils
from comfy import model_management
from comfy.lazy_import import lazy_module
from comfy.text.qwen.conversations import ABOUT_PICTURES, ONE_PICTURE
from comfy_api.latest import ComfyExtension, io
from comfy_extras.fitted_pictures import with_area, with_references
from comfy_extras.node_inputs import MAX_RESOLUTION

if TYPE_CHECKING:
    from torch import Tensor

    from comfy.images.vae import VAE
    from comfy.model_patcher import ModelPatcher
    from comfy.text.encoder import CLIP

torch = lazy_module("torch")

CATEGORY = "model/conditioning/qwen image"
SEEN_SIDE, REFERENCE_SIDE = 384, 1024  # squares of as many pixels as a picture has for the text encoder, and as a reference
GRID = 32  # pixels of a token of the text encoder
PICTURE = f"Picture {{}}: {ONE_PICTURE}"


def _inputs(*pictures: str) -> list[io.Input]:
    return [
        io.Clip.Input("clip"),
        io.String.Input("prompt", multiline=True, dynamic_prompts=True),
        io.Vae.Input("vae", optional=True),
        *(io.Image.Input(name, optional=True) for name in pictures),
    ]


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
        return io.NodeOutput(with_references(conditioning, latents))


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
        return io.NodeOutput(with_references(clip.encode_from_tokens_scheduled(tokens), latents))


class TextEncodeQwenImage21(io.ComfyNode):
    """Encodes two prompts about pictures for Qwen-Image 2.1."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        pictures = io.Autogrow.TemplateNames(io.Image.Input("image"), names=[f"image_{number}" for number in range(1, 17)], min=0)
        return io.Schema(
            node_id="TextEncodeQwenImage21",
            display_name="Text Encode Qwen Image 2.1",
            category=CATEGORY,
            inputs=[
                io.Clip.Input("clip"),
                io.String.Input("prompt", multiline=True, dynamic_prompts=True),
                io.String.Input("negative_prompt", multiline=True, dynamic_prompts=True),
                io.Vae.Input("vae", optional=True),
                io.Int.Input(
                    "resolution",
                    default=REFERENCE_SIDE,
                    min=0,
                    max=4096,
                    step=GRID,
                    tooltip="pictures get about as many pixels as a square of this side, in multiples of 32; 0: as many as they have",
                ),
                io.Autogrow.Input("images", template=pictures, tooltip="pictures that the prompts speak of as <image1> and so on"),
            ],
            outputs=[
                io.Conditioning.Output(display_name="positive"),
                io.Conditioning.Output(display_name="negative"),
                io.Latent.Output(display_name="latent", tooltip="empty, of the first picture's size"),
            ],
        )

    @classmethod
    def execute(
        cls,
        clip: CLIP,
        prompt: str,
        negative_prompt: str,
        vae: VAE | None = None,
        resolution: int = REFERENCE_SIDE,
        images: dict[str, Tensor | None] | None = None,
    ) -> io.NodeOutput:
        """Two conditionings that know the pictures, with *vae* by their latents, without it by what the text encoder sees; and zeros of 64
        channels, a cell per 16×16 pixels. Transparent parts are white for the text encoder."""
        given = sorted((images or {}).items(), key=lambda one: int(one[0].rpartition("_")[2]))
        fitted = [_on_grid(image[:1], resolution) for _, image in given if image is not None]
        height, width = fitted[0].shape[1:3] if fitted else (resolution or REFERENCE_SIDE,) * 2
        seen = [_on_white(image) for image in fitted]
        latents = [] if vae is None else [vae.encode(image) for image in fitted]
        tokens = (clip.tokenize(text, images=seen, keep_vision=not latents, prevent_empty_text=True) for text in (prompt, negative_prompt))
        empty = torch.zeros((1, 64, height // 16, width // 16), device=model_management.intermediate_device())
        encoded = (with_references(clip.encode_from_tokens_scheduled(one), latents) for one in tokens)
        return io.NodeOutput(*encoded, {"samples": empty})


def _on_grid(image: Tensor, side: int) -> Tensor:
    """*image* (1 x height x width x channels) with about *side*² pixels (0: as many as it has), its sides in multiples of 32."""
    height, width = image.shape[1:3]
    shrink = 1.0 if side == 0 else side / math.sqrt(height * width)
    wide, high = (max(GRID, round(length * shrink / GRID) * GRID) for length in (width, height))
    if (high, wide) == (height, width):
        return image
    resized: Tensor = comfy.utils.common_upscale(image.movedim(-1, 1), wide, high, "lanczos", "disabled")
    return resized.movedim(1, -1)


def _on_white(image: Tensor) -> Tensor:
    """The colours of *image* over white, where it has transparency."""
    colours, alpha = image[..., :3], image[..., 3:]
    return colours * alpha + (1 - alpha) if alpha.shape[-1] else colours


class QwenImage21Cache(io.ComfyNode):
    """Says where Qwen-Image 2.1 keeps what it made of text and reference pictures, and how precisely."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="QwenImage21Cache",
            display_name="Qwen Image 2.1 Cache",
            category=CATEGORY,
            description="Without this node the model keeps it as it is, on the card where there is room.",
            inputs=[
                io.Model.Input("model"),
                io.Combo.Input("device", options=["auto", "gpu", "cpu", "off"], default="auto", tooltip="off: computed at every step"),
                io.Combo.Input(
                    "dtype", options=["default", "int8", "int4"], default="default", tooltip="in a half or a quarter of the memory, rounded"
                ),
            ],
            outputs=[io.Model.Output()],
            is_experimental=True,
        )

    @classmethod
    def execute(cls, model: ModelPatcher, device: str, dtype: str) -> io.NodeOutput:
        """A clone of *model* that says so."""
        patched = model.clone()
        patched.model_options.setdefault("transformer_options", {})["qwen_image21_cache"] = {"device": device, "dtype": dtype}
        return io.NodeOutput(patched)


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
        encoding = [TextEncodeQwenImageEdit, TextEncodeQwenImageEditPlus, TextEncodeQwenImage21]
        return [*encoding, QwenImage21Cache, EmptyQwenImageLayeredLatentImage]


async def comfy_entrypoint() -> QwenExtension:
    """The extension, for the pack loader."""
    return QwenExtension()
