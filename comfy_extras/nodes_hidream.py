"""Nodes for HiDream: loading a text encoder of four files, and encoding a text for each of its encoders."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import folder_paths
from comfy_api.latest import io
from comfy_extras.core_loaders import load_text_encoders
from comfy_extras.prompt_texts import prompt_input, with_texts

if TYPE_CHECKING:
    from comfy.text.encoder import CLIP


class QuadrupleCLIPLoader:
    """Loads a text encoder made of four files."""

    RETURN_TYPES = ("CLIP",)
    FUNCTION = "load_clip"
    CATEGORY = "model/loaders"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        files = folder_paths.get_filename_list("text_encoders")
        return {"required": {f"clip_name{number}": (files,) for number in range(1, 5)}}

    @classmethod
    def execute(cls, clip_name1: str, clip_name2: str, clip_name3: str, clip_name4: str) -> tuple[CLIP]:
        """The text encoder. Raises ``ModelFileError`` for text models of which no supported family is made."""
        return load_text_encoders([clip_name1, clip_name2, clip_name3, clip_name4])

    load_clip = execute


class CLIPTextEncodeHiDream(io.ComfyNode):
    """Encodes one text for each of HiDream's four encoders."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CLIPTextEncodeHiDream",
            display_name="CLIP Text Encode (HiDream)",
            search_aliases=["hidream prompt"],
            category="model/conditioning/hidream",
            inputs=[io.Clip.Input("clip"), *(prompt_input(name) for name in ("clip_l", "clip_g", "t5xxl", "llama"))],
            outputs=[io.Conditioning.Output()],
        )

    @classmethod
    def execute(cls, clip: CLIP, clip_l: str, clip_g: str, t5xxl: str, llama: str) -> io.NodeOutput:
        """The conditioning. Raises ``ValueError`` when an encoder is missing."""
        return io.NodeOutput(clip.encode_from_tokens_scheduled(with_texts(clip, clip_g, l=clip_l, t5xxl=t5xxl, llama=llama)))


NODE_CLASS_MAPPINGS = {"QuadrupleCLIPLoader": QuadrupleCLIPLoader, "CLIPTextEncodeHiDream": CLIPTextEncodeHiDream}
NODE_DISPLAY_NAME_MAPPINGS = {"QuadrupleCLIPLoader": "Load CLIP (Quadruple)", "CLIPTextEncodeHiDream": "CLIP Text Encode (HiDream)"}
