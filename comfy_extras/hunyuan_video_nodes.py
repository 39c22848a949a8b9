"""Nodes for HunyuanVideo 1 and 1.5: a picture to video, larger videos, and detail for these."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import comfy.utils
import folder_paths
import node_helpers
from comfy import model_management
from comfy.lazy_import import lazy_module
from comfy_api.latest import io
from comfy_extras.empty_latents import empty_latent, sides_and_latent, size_inputs
from comfy_extras.prompt_texts import prompt_input
from comfy_extras.wan_conditioning import (
    FRAMES_PER_CELL,
    cells,
    empty_video,
    fitted,
    image_inputs,
    put_first,
    seen_input,
    with_sight,
    with_values,
)

if TYPE_CHECKING:
    from torch import Tensor

    from comfy.clip_vision import Output
    from comfy.images.vae import VAE
    from comfy.ldm.hunyuan_video.upsampler import HunyuanVideo15SRModel
    from comfy.text.encoder import CLIP
    from comfy_extras.node_values import Conditioning, Latent

torch = lazy_module("torch")
latent_upscaler = lazy_module("comfy.loading.latent_upscaler")
text_encoder = lazy_module("comfy.text_encoders.hunyuan_video")

CHANNELS, SIDE = 32, 16  # of a latent, and pixels of a cell along one side
SMALLEST = 64
METHODS = ["nearest-exact", "bilinear", "area", "bicubic", "bislerp"]


def _sides() -> list[io.Input]:
    return [io.Conditioning.Input("positive"), io.Conditioning.Input("negative")]


class HunyuanImageToVideo(io.ComfyNode):
    """Makes a video of HunyuanVideo 1 begin with frames, in the way its version wants."""

    CONCAT, REPLACE, BESIDE = "v1 (concat)", "v2 (replace)", "custom"

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="HunyuanImageToVideo",
            category="model/conditioning/hunyuan video",
            inputs=[
                *(io.Conditioning.Input("positive"), io.Vae.Input("vae")),
                *size_inputs(848, 480, 16, length=(53, 1, FRAMES_PER_CELL)),
                io.Combo.Input("guidance_type", options=[cls.CONCAT, cls.REPLACE, cls.BESIDE], advanced=True),
                *image_inputs("start_image"),
            ],
            outputs=[io.Conditioning.Output(display_name="positive"), io.Latent.Output(display_name="latent")],
        )

    @classmethod
    def execute(
        cls,
        positive: Conditioning,
        vae: VAE,
        width: int,
        height: int,
        length: int,
        batch_size: int,
        guidance_type: str,
        start_image: Tensor | None = None,
    ) -> io.NodeOutput:
        """The conditioning and an empty latent; with version 2 the latent begins with the frames', and a mask keeps them."""
        latent: Latent = empty_video(batch_size, length, width, height)
        if start_image is None:
            return io.NodeOutput(positive, latent)
        frames = fitted(start_image[:length], width, height)
        encoded = vae.encode(frames)
        free = torch.ones((1, 1, latent["samples"].shape[2], *encoded.shape[-2:]), device=frames.device, dtype=frames.dtype)
        free[:, :, : cells(len(frames))] = 0.0
        values: dict[str, Any] = {"ref_latent": encoded}
        if guidance_type == cls.CONCAT:
            values = {"concat_latent_image": encoded, "concat_mask": free}
        elif guidance_type == cls.REPLACE:
            values = {"guiding_frame_index": 0}
            latent |= {"samples": put_first(latent["samples"], encoded), "noise_mask": free}
        return io.NodeOutput(node_helpers.conditioning_set_values(positive, values), latent)


class TextEncodeHunyuanVideo_ImageToVideo(io.ComfyNode):  # noqa: N801 - ComfyUI's name
    """Encodes a text and the picture that it is about."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        share = "How much the image influences things vs the text prompt. Higher number means more influence from the text prompt."
        return io.Schema(
            node_id="TextEncodeHunyuanVideo_ImageToVideo",
            category="model/conditioning/hunyuan video",
            inputs=[
                *(io.Clip.Input("clip"), io.ClipVisionOutput.Input("clip_vision_output"), prompt_input("prompt")),
                io.Int.Input("image_interleave", default=2, min=1, max=512, tooltip=share, advanced=True),
            ],
            outputs=[io.Conditioning.Output()],
        )

    @classmethod
    def execute(cls, clip: CLIP, clip_vision_output: Output, prompt: str, image_interleave: int) -> io.NodeOutput:
        """The conditioning. Raises ``ValueError`` for what an image encoder saw that gives nothing to language models."""
        seen = clip_vision_output["mm_projected"]
        if seen is None:
            raise ValueError("this image encoder gives nothing that a language model reads; load llava_llama3_vision in CLIPVisionLoader")
        tokens = clip.tokenize(prompt, llama_template=text_encoder.ABOUT_PICTURE, image_embeds=seen, image_interleave=image_interleave)
        return io.NodeOutput(clip.encode_from_tokens_scheduled(tokens))


class HunyuanVideo15ImageToVideo(io.ComfyNode):
    """Makes a video begin with one or more frames."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        sizes = size_inputs(848, 480, 16, length=(33, 1, FRAMES_PER_CELL))
        return io.Schema(
            node_id="HunyuanVideo15ImageToVideo",
            category="model/conditioning/hunyuan video",
            inputs=[*_sides(), io.Vae.Input("vae"), *sizes, *image_inputs("start_image"), seen_input()],
            outputs=sides_and_latent(),
        )

    @classmethod
    def execute(
        cls,
        positive: Conditioning,
        negative: Conditioning,
        vae: VAE,
        width: int,
        height: int,
        length: int,
        batch_size: int,
        start_image: Tensor | None = None,
        clip_vision_output: Output | None = None,
    ) -> io.NodeOutput:
        """The conditionings with the start's latent and its mask, and an empty latent."""
        latent = empty_latent(batch_size, CHANNELS, cells(length), height // SIDE, width // SIDE)
        sides = (positive, negative)
        if start_image is not None:
            start = fitted(start_image[:length], width, height)
            begun = put_first(torch.zeros_like(latent["samples"]), vae.encode(start))
            free = torch.ones((1, 1, *begun.shape[2:]), device=start.device, dtype=start.dtype)
            free[:, :, : cells(len(start))] = 0.0
            sides = with_values(sides, {"concat_latent_image": begun, "concat_mask": free})
        return io.NodeOutput(*with_sight(sides, clip_vision_output), latent)


class HunyuanVideo15SuperResolution(io.ComfyNode):
    """Gives the network that adds detail a video made larger."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="HunyuanVideo15SuperResolution",
            display_name="Hunyuan Video 1.5 Super Resolution",
            category="model/conditioning/hunyuan video",
            inputs=[
                *_sides(),
                io.Vae.Input("vae", optional=True),
                *image_inputs("start_image"),
                seen_input(),
                io.Latent.Input("latent"),
                io.Float.Input("noise_augmentation", default=0.70, min=0.0, max=1.0, step=0.01, advanced=True),
            ],
            outputs=sides_and_latent(),
        )

    @classmethod
    def execute(
        cls,
        positive: Conditioning,
        negative: Conditioning,
        latent: Latent,
        noise_augmentation: float,
        vae: VAE | None = None,
        start_image: Tensor | None = None,
        clip_vision_output: Output | None = None,
    ) -> io.NodeOutput:
        """The conditionings with a picture's latent, its mask, the video's latent and its mask; and *latent*. Raises ``ValueError`` for a
        picture without *vae*.
        """
        video = latent["samples"].to(model_management.intermediate_device())
        picture, seen, whole = torch.zeros_like(video), torch.zeros_like(video[:, :1]), torch.ones_like(video[:, :1])
        if start_image is not None:
            if vae is None:
                raise ValueError("a start image needs the VAE that encodes it; connect vae")
            start = fitted(start_image, video.shape[-1] * SIDE, video.shape[-2] * SIDE)
            picture = put_first(picture, vae.encode(start))
            video = video.clone()
            video[:, 0, 0] = 1  # as ComfyUI does: the first channel of the video's first frame, not the picture's mask
        joined = torch.cat((picture, seen, video, whole), dim=1)
        sides = with_values((positive, negative), {"concat_latent_image": joined, "noise_augmentation": noise_augmentation})
        return io.NodeOutput(*with_sight(sides, clip_vision_output), latent)


class LatentUpscaleModelLoader(io.ComfyNode):
    """Loads a model that enlarges latents."""

    READS_AHEAD = {"model_name": "latent_upscale_models"}

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LatentUpscaleModelLoader",
            display_name="Load Latent Upscale Model",
            category="model/loaders",
            inputs=[io.Combo.Input("model_name", options=folder_paths.get_filename_list("latent_upscale_models"))],
            outputs=[io.LatentUpscaleModel.Output()],
        )

    @classmethod
    def execute(cls, model_name: str) -> io.NodeOutput:
        """The model. Raises ``ModelFileError`` for files that hold none that is supported."""
        path = folder_paths.get_full_path_or_raise("latent_upscale_models", model_name)
        return io.NodeOutput(latent_upscaler.load_latent_upscaler(path))


class HunyuanVideo15LatentUpscaleWithModel(io.ComfyNode):
    """Enlarges latents, and makes them sharper by a model."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        sizes = (io.Int.Input(name, default=default, min=0, max=16384, step=8) for name, default in (("width", 1280), ("height", 720)))
        return io.Schema(
            node_id="HunyuanVideo15LatentUpscaleWithModel",
            display_name="Hunyuan Video 15 Latent Upscale With Model",
            category="model/latent/hunyhuan video",  # so written in ComfyUI, whose menus people know
            inputs=[
                *(io.LatentUpscaleModel.Input("model"), io.Latent.Input("samples")),
                io.Combo.Input("upscale_method", options=METHODS, default="bilinear"),
                *sizes,
                io.Combo.Input("crop", options=["disabled", "center"]),
            ],
            outputs=[io.Latent.Output()],
        )

    @classmethod
    def execute(
        cls, model: HunyuanVideo15SRModel, samples: Latent, upscale_method: str, width: int, height: int, crop: str
    ) -> io.NodeOutput:
        """Latents for videos of *width* x *height* pixels; where one is 0 it follows from the proportions; with both 0 nothing changes."""
        if not width and not height:
            return io.NodeOutput(samples)
        latent = samples["samples"]
        rows, columns = latent.shape[-2:]
        wide = max(SMALLEST, width or round(columns * max(SMALLEST, height) / rows))
        high = max(SMALLEST, height or round(rows * max(SMALLEST, width) / columns))
        larger: Any = comfy.utils.common_upscale(latent, wide // SIDE, high // SIDE, upscale_method, crop)
        return io.NodeOutput({"samples": model.resample_latent(larger).to(model_management.intermediate_device()).float()})
