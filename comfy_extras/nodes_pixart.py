"""The text encoding node of PixArt Alpha, whose model also takes the picture's size."""

from __future__ import annotations

from typing import TYPE_CHECKING

from comfy_api.latest import io
from comfy_extras.node_extension import extension_of
from comfy_extras.node_inputs import MAX_RESOLUTION
from comfy_extras.prompt_texts import prompt_input

if TYPE_CHECKING:
    from comfy.text.encoder import CLIP


class CLIPTextEncodePixArtAlpha(io.ComfyNode):
    """Encodes a text with the size of the picture."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CLIPTextEncodePixArtAlpha",
            display_name="CLIP Text Encode (PixArt Alpha)",
            search_aliases=["pixart prompt"],
            category="model/conditioning/pixart",
            description="Encodes a text with the size that PixArt Alpha is told of. PixArt Sigma is not told any.",
            inputs=[
                *(io.Int.Input(name, default=1024, min=0, max=MAX_RESOLUTION) for name in ("width", "height")),
                prompt_input("text"),
                io.Clip.Input("clip"),
            ],
            outputs=[io.Conditioning.Output()],
        )

    @classmethod
    def execute(cls, clip: CLIP, width: int, height: int, text: str) -> io.NodeOutput:
        """The conditioning."""
        return io.NodeOutput(clip.encode_from_tokens_scheduled(clip.tokenize(text), add_dict={"width": width, "height": height}))


comfy_entrypoint = extension_of(CLIPTextEncodePixArtAlpha)
