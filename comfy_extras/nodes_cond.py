"""A node that gives conditioning another text for its ControlNets."""

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


comfy_entrypoint = extension_of(CLIPTextEncodeControlnet)
