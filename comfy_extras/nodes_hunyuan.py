"""Nodes for Hunyuan's models: the text of Hunyuan-DiT, and empty latents for pictures and videos."""

from __future__ import annotations

from typing import TYPE_CHECKING

from comfy_api.latest import io
from comfy_extras.empty_latents import empty_latent, size_inputs
from comfy_extras.hunyuan_video_nodes import (
    HunyuanImageToVideo,
    HunyuanVideo15ImageToVideo,
    HunyuanVideo15LatentUpscaleWithModel,
    HunyuanVideo15SuperResolution,
    LatentUpscaleModelLoader,
    TextEncodeHunyuanVideo_ImageToVideo,
)
from comfy_extras.node_extension import extension_of
from comfy_extras.prompt_texts import prompt_input, with_texts

if TYPE_CHECKING:
    from comfy.text.encoder import CLIP

FRAMES_PER_CELL = 4


class CLIPTextEncodeHunyuanDiT(io.ComfyNode):
    """Encodes one text for each of the two encoders of Hunyuan-DiT."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CLIPTextEncodeHunyuanDiT",
            display_name="CLIP Text Encode (Hunyuan Image)",
            category="model/conditioning/hunyuan image",
            inputs=[io.Clip.Input("clip"), prompt_input("bert"), prompt_input("mt5xl")],
            outputs=[io.Conditioning.Output()],
        )

    @classmethod
    def execute(cls, clip: CLIP, bert: str, mt5xl: str) -> io.NodeOutput:
        """The conditioning."""
        return io.NodeOutput(clip.encode_from_tokens_scheduled(with_texts(clip, bert, mt5xl=mt5xl)))

    encode = execute


class EmptyHunyuanLatentVideo(io.ComfyNode):
    """Makes empty latents for videos of HunyuanVideo and of models with the same autoencoder sizes, such as Wan 2.1."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="EmptyHunyuanLatentVideo",
            display_name="Empty HunyuanVideo 1.0 Latent",
            category="model/latent/hunyuan video",
            inputs=size_inputs(848, 480, 16, length=(25, 1, FRAMES_PER_CELL)),
            outputs=[io.Latent.Output()],
        )

    @classmethod
    def execute(cls, width: int, height: int, length: int, batch_size: int = 1) -> io.NodeOutput:
        """Latents of 16 channels, a cell per 8×8 pixels and 4 frames (the first frame has one of its own)."""
        return io.NodeOutput(cls._empty(16, 8, width, height, length, batch_size))

    @classmethod
    def _empty(cls, channels: int, side: int, width: int, height: int, length: int, batch_size: int) -> dict[str, object]:
        frames = (length - 1) // FRAMES_PER_CELL + 1
        return empty_latent(batch_size, channels, frames, height // side, width // side, downscale_ratio_spacial=side)

    generate = execute


class EmptyHunyuanVideo15Latent(EmptyHunyuanLatentVideo):
    """Makes empty latents for videos of HunyuanVideo 1.5."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        schema = super().define_schema()
        schema.node_id, schema.display_name = "EmptyHunyuanVideo15Latent", "Empty HunyuanVideo 1.5 Latent"
        return schema

    @classmethod
    def execute(cls, width: int, height: int, length: int, batch_size: int = 1) -> io.NodeOutput:
        """Latents of 32 channels, a cell per 16×16 pixels and 4 frames."""
        return io.NodeOutput(cls._empty(32, 16, width, height, length, batch_size))


class EmptyHunyuanImageLatent(io.ComfyNode):
    """Makes empty latents for Hunyuan-Image 2.1."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="EmptyHunyuanImageLatent",
            category="model/latent/hunyuan image",
            inputs=size_inputs(2048, 2048, 32, 64),
            outputs=[io.Latent.Output()],
        )

    @classmethod
    def execute(cls, width: int, height: int, batch_size: int = 1) -> io.NodeOutput:
        """Latents of 64 channels, a cell per 32×32 pixels."""
        return io.NodeOutput(empty_latent(batch_size, 64, height // 32, width // 32))

    generate = execute


EMPTY = (EmptyHunyuanLatentVideo, EmptyHunyuanVideo15Latent, EmptyHunyuanImageLatent)
LARGER = (LatentUpscaleModelLoader, HunyuanVideo15LatentUpscaleWithModel, HunyuanVideo15SuperResolution)

FROM_PICTURES = (TextEncodeHunyuanVideo_ImageToVideo, HunyuanImageToVideo, HunyuanVideo15ImageToVideo)

comfy_entrypoint = extension_of(CLIPTextEncodeHunyuanDiT, *EMPTY, *FROM_PICTURES, *LARGER)
