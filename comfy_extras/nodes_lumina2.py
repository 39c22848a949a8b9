"""Nodes for Lumina 2: its text with a system prompt, and guidance that is cut off and kept short."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from comfy.lazy_import import lazy_module
from comfy_api.latest import io
from comfy_extras.model_patch_schema import model_patch_schema
from comfy_extras.node_extension import extension_of
from comfy_extras.prompt_texts import prompt_input

if TYPE_CHECKING:
    from torch import Tensor

    from comfy.model_patcher import ModelPatcher
    from comfy.text.encoder import CLIP

torch = lazy_module("torch")

ASSISTANT = "You are an assistant designed to generate "
PROMPTED = "degree of image-text alignment based on textual prompts"


class RenormCFG(io.ComfyNode):
    """Guides the network's own channels, only below a time step, and to no more than a multiple of the positive prediction's length."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return model_patch_schema(
            "RenormCFG",
            "model/patch",
            *(
                io.Float.Input(name, default=default, min=0.0, max=100.0, step=0.01, advanced=True)
                for name, default in (("cfg_trunc", 100), ("renorm_cfg", 1.0))
            ),
        )

    @classmethod
    def execute(cls, model: ModelPatcher, cfg_trunc: float, renorm_cfg: float) -> io.NodeOutput:
        """A clone of *model*. A *renorm_cfg* of 0 sets no bound."""
        in_channels: int | None = getattr(model.model.diffusion_model, "in_channels", None)

        def guided(args: dict[str, Any]) -> Tensor:
            positive, negative, x = args["cond_denoised"], args["uncond_denoised"], args["input"]
            if args["timestep"][0] >= cfg_trunc:
                return x - positive
            channels = positive.shape[1] if in_channels is None else in_channels
            own, others = positive[:, :channels], positive[:, channels:]
            result = negative[:, :channels] + args["cond_scale"] * (own - negative[:, :channels])
            if renorm_cfg > 0:
                longest, length = _length(own) * renorm_cfg, _length(result)
                result = torch.where(length >= longest, result * (longest / length), result)
            return x - torch.cat([result, others], dim=1)

        clone = model.clone()
        clone.set_model_sampler_cfg_function(guided)
        return io.NodeOutput(clone)


def _length(x: Tensor) -> Tensor:
    """Of each picture (B×C×…): B×1×…"""
    return torch.linalg.vector_norm(x, dim=tuple(range(1, x.ndim)), keepdim=True)


class CLIPTextEncodeLumina2(io.ComfyNode):
    """Encodes a system prompt and a user prompt in the form that Lumina 2 was trained with."""

    SYSTEM_PROMPT: ClassVar[dict[str, str]] = {
        "superior": f"{ASSISTANT}superior images with the superior {PROMPTED} or user prompts.",
        "alignment": f"{ASSISTANT}high-quality images with the highest {PROMPTED}.",
    }

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CLIPTextEncodeLumina2",
            search_aliases=["lumina prompt"],
            display_name="CLIP Text Encode (Lumina 2)",
            category="model/conditioning/lumina",
            description="Encodes a prompt with one of the two system prompts that Lumina 2 knows.",
            inputs=[
                io.Combo.Input(
                    "system_prompt", options=list(cls.SYSTEM_PROMPT), tooltip="superior aims at quality, alignment at what the prompt says."
                ),
                prompt_input("user_prompt", "The prompt."),
                io.Clip.Input("clip", tooltip="The text encoder."),
            ],
            outputs=[io.Conditioning.Output(tooltip="The encoded prompt, for a sampler.")],
        )

    @classmethod
    def execute(cls, clip: CLIP | None, user_prompt: str, system_prompt: str) -> io.NodeOutput:
        """The conditioning. Raises ``RuntimeError`` when *clip* is None, as from a checkpoint without a text encoder."""
        if clip is None:
            raise RuntimeError("there is no text encoder: the checkpoint it should come from has none. Load one with a CLIP loader node")
        prompt = f"{cls.SYSTEM_PROMPT[system_prompt]} <Prompt Start> {user_prompt}"
        return io.NodeOutput(clip.encode_from_tokens_scheduled(clip.tokenize(prompt)))


comfy_entrypoint = extension_of(CLIPTextEncodeLumina2, RenormCFG)
