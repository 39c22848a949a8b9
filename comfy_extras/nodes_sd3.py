"""Nodes for Stable Diffusion 3: text encoder of three files, texts, latents, skip-layer guidance, control with an autoencoder."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import folder_paths
from comfy import model_management
from comfy.lazy_import import lazy_module
from comfy_api.latest import io
from comfy_extras.core_control import ControlNetApplyAdvanced
from comfy_extras.core_loaders import load_text_encoders
from comfy_extras.model_patch_schema import layers_input, model_patch_schema, share_input
from comfy_extras.node_inputs import pixels, whole
from comfy_extras.nodes_slg import SkipLayerGuidanceDiT
from comfy_extras.prompt_texts import prompt_input, tokens_of

if TYPE_CHECKING:
    from torch import Tensor

    from comfy.control.base import ControlBase
    from comfy.images.vae import VAE
    from comfy.model_patcher import ModelPatcher
    from comfy.text.encoder import CLIP
    from comfy_extras.node_values import Conditioning, Latent

torch = lazy_module("torch")

CHANNELS, PIXELS_PER_CELL = 16, 8


class TripleCLIPLoader:
    """Loads a text encoder made of three files."""

    RETURN_TYPES = ("CLIP",)
    FUNCTION = "load_clip"
    CATEGORY = "model/loaders"
    READS_AHEAD = dict.fromkeys(("clip_name1", "clip_name2", "clip_name3"), "text_encoders")
    DESCRIPTION = "sd3: clip-l, clip-g and t5 xxl, in any order."

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        files = folder_paths.get_filename_list("text_encoders")
        return {"required": {f"clip_name{number}": (files,) for number in range(1, 4)}}

    @classmethod
    def execute(cls, clip_name1: str, clip_name2: str, clip_name3: str) -> tuple[CLIP]:
        """The text encoder. Raises ``ModelFileError`` for text models of which no supported family is made."""
        return load_text_encoders([clip_name1, clip_name2, clip_name3])

    load_clip = execute


class EmptySD3LatentImage:
    """Makes zero latents with the sixteen channels of Stable Diffusion 3 and Flux."""

    RETURN_TYPES = ("LATENT",)
    FUNCTION = "execute"
    CATEGORY = "model/latent/stable diffusion"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"width": pixels(1024, 16, 16), "height": pixels(1024, 16, 16), "batch_size": whole(1, 1, 4096)}}

    @classmethod
    def execute(cls, width: int, height: int, batch_size: int = 1) -> tuple[Latent]:
        """*batch_size* latents for pictures of *width* x *height* pixels."""
        shape = (batch_size, CHANNELS, height // PIXELS_PER_CELL, width // PIXELS_PER_CELL)
        samples = torch.zeros(shape, device=model_management.intermediate_device(), dtype=model_management.intermediate_dtype())
        return ({"samples": samples, "downscale_ratio_spacial": PIXELS_PER_CELL},)

    generate = execute


class CLIPTextEncodeSD3(io.ComfyNode):
    """Encodes one text for each of Stable Diffusion 3's encoders."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CLIPTextEncodeSD3",
            category="model/conditioning/stable diffusion",
            display_name="CLIP Text Encode (SD3)",
            search_aliases=["sd3 prompt"],
            inputs=[
                io.Clip.Input("clip"),
                *(prompt_input(name) for name in ("clip_l", "clip_g", "t5xxl")),
                io.Combo.Input("empty_padding", options=["none", "empty_prompt"], advanced=True),
            ],
            outputs=[io.Conditioning.Output()],
        )

    @classmethod
    def execute(cls, clip: CLIP, clip_l: str, clip_g: str, t5xxl: str, empty_padding: str) -> io.NodeOutput:
        """The conditioning. With *empty_padding* "none" an encoder whose text is empty gets no tokens.

        Raises ``ValueError`` when an encoder is missing.
        """
        leaves_out = empty_padding == "none"
        tokens: dict[str, Any] = dict(clip.tokenize(clip_g))
        for name, text in (("g", clip_g), ("l", clip_l), ("t5xxl", t5xxl)):
            found = tokens_of(clip, text, name)
            tokens[name] = [] if leaves_out and not text else found
        _lengthen(tokens, clip)
        return io.NodeOutput(clip.encode_from_tokens_scheduled(tokens))

    encode = execute


def _lengthen(tokens: dict[str, Any], clip: CLIP) -> None:
    """Fill the shorter of both CLIP texts up with empty sections, so that they can be joined."""
    most = max(len(tokens["l"]), len(tokens["g"]))
    empty = clip.tokenize("")
    for name in ("l", "g"):
        while len(tokens[name]) < most:
            tokens[name] = [*tokens[name], *empty[name]]


class SkipLayerGuidanceSD3(io.ComfyNode):
    """Guides away from the positive prediction without some layers."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return model_patch_schema(
            "SkipLayerGuidanceSD3",
            "advanced/guidance",
            layers_input("layers", multiline=False),
            io.Float.Input("scale", default=3.0, min=0.0, max=10.0, step=0.1),
            share_input("start_percent", 0.01),
            share_input("end_percent", 0.15),
            description="Guides a diffusion transformer towards detail: away from what it gives without some of its layers.",
            is_experimental=True,
        )

    @classmethod
    def execute(cls, model: ModelPatcher, layers: str, scale: float, start_percent: float, end_percent: float) -> io.NodeOutput:
        """A clone of *model*, or *model* when no layer is named."""
        return SkipLayerGuidanceDiT.execute(model, scale, start_percent, end_percent, double_layers=layers)

    skip_guidance_sd3 = execute


class ControlNetApplySD3(io.ComfyNode):
    """Lets a ControlNet that looks at latents steer both sides of guidance; saved workflows have it."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        sides = ("positive", "negative")
        shares = [io.Float.Input(f"{end}_percent", default=at, min=0.0, max=1.0, step=0.001) for end, at in (("start", 0.0), ("end", 1.0))]
        sockets = [io.ControlNet.Input("control_net"), io.Vae.Input("vae"), io.Image.Input("image")]
        strength = io.Float.Input("strength", default=1.0, min=0.0, max=10.0, step=0.01)
        return io.Schema(
            node_id="ControlNetApplySD3",
            display_name="Apply Controlnet with VAE",
            category="model/conditioning/controlnet",
            inputs=[*(io.Conditioning.Input(side) for side in sides), *sockets, strength, *shares],
            outputs=[io.Conditioning.Output(display_name=side) for side in sides],
            is_deprecated=True,
        )

    @classmethod
    def execute(
        cls,
        positive: Conditioning,
        negative: Conditioning,
        control_net: ControlBase,
        image: Tensor,
        strength: float,
        start_percent: float,
        end_percent: float,
        vae: VAE | None = None,
    ) -> io.NodeOutput:
        """Both sides with the control, as ``ControlNetApplyAdvanced`` makes them."""
        given = (positive, negative, control_net, image, strength, start_percent, end_percent, vae)
        return io.NodeOutput(*ControlNetApplyAdvanced().apply_controlnet(*given))


NODE_CLASS_MAPPINGS = {
    "TripleCLIPLoader": TripleCLIPLoader,
    "EmptySD3LatentImage": EmptySD3LatentImage,
    "CLIPTextEncodeSD3": CLIPTextEncodeSD3,
    "SkipLayerGuidanceSD3": SkipLayerGuidanceSD3,
    "ControlNetApplySD3": ControlNetApplySD3,
}
NODE_DISPLAY_NAME_MAPPINGS = {"TripleCLIPLoader": "Load CLIP (Triple)", "CLIPTextEncodeSD3": "CLIP Text Encode (SD3)"}
