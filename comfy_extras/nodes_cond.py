"""Nodes that give conditioning another text for its ControlNets, and set how T5 fills up prompts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import node_helpers
from comfy_api.latest import io
from comfy_extras.node_extension import extension_of
from comfy_extras.prompt_texts import prompt_input

if TYPE_CHECKING:
    from comfy.text.encoder import CLIP
    from comfy_extras.node_values import Conditioning


class CLIPTextEncodeControlnet(io.ComfyNode):
    """Encodes a text that only the ControlNets of a conditioning see."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CLIPTextEncodeControlnet",
            display_name="CLIP Text Encode (Controlnet)",
            category="model/conditioning",
            inputs=[io.Clip.Input("clip"), io.Conditioning.Input("conditioning"), prompt_input("text")],
            outputs=[io.Conditioning.Output()],
            is_experimental=True,
        )

    @classmethod
    def execute(cls, clip: CLIP, conditioning: Conditioning, text: str) -> io.NodeOutput:
        """The conditioning with the encoded text beside its own."""
        states, pooled = clip.encode_from_tokens(clip.tokenize(text), return_pooled=True)
        values = {"cross_attn_controlnet": states, "pooled_output_controlnet": pooled}
        return io.NodeOutput(node_helpers.conditioning_set_values(conditioning, values))


T5_PARTS = ("t5xxl", "pile_t5xl", "t5base", "mt5xl", "umt5xxl")


class T5TokenizerOptions(io.ComfyNode):
    """Sets how many padding tokens every T5 of a text encoder adds at least, and how many tokens a prompt has at least."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        numbers = (io.Int.Input(name, default=0, min=0, max=10000, step=1) for name in ("min_padding", "min_length"))
        return io.Schema(
            node_id="T5TokenizerOptions",
            display_name="T5 Tokenizer Options",
            category="model/conditioning",
            inputs=[io.Clip.Input("clip"), *numbers],
            outputs=[io.Clip.Output()],
            is_experimental=True,
        )

    @classmethod
    def execute(cls, clip: CLIP, min_padding: int, min_length: int) -> io.NodeOutput:
        """A clone of the text encoder with these options."""
        changed = clip.clone()
        for part in T5_PARTS:
            changed.set_tokenizer_option(f"{part}_min_padding", min_padding)
            changed.set_tokenizer_option(f"{part}_min_length", min_length)
        return io.NodeOutput(changed)


comfy_entrypoint = extension_of(CLIPTextEncodeControlnet, T5TokenizerOptions)
