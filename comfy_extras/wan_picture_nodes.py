"""Nodes that make Wan's videos begin, or end, with pictures."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from comfy.lazy_import import lazy_module
from comfy_api.latest import io
from comfy_extras.empty_latents import size_inputs
from comfy_extras.wan_conditioning import (
    FRAMES_PER_CELL,
    blank_latent,
    empty_video,
    encoded_start,
    fitted,
    free_frames,
    grey_video,
    image_inputs,
    put_first,
    seen_input,
    video_schema,
    with_sight,
    with_values,
)

if TYPE_CHECKING:
    from torch import Tensor

    from comfy.clip_vision import Output
    from comfy.images.vae import VAE
    from comfy_extras.node_values import Conditioning

torch = lazy_module("torch")
clip_vision = lazy_module("comfy.clip_vision")
latent_formats = lazy_module("comfy.latent_formats")


class WanImageToVideo(io.ComfyNode):
    """Makes a video begin with one or more frames."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return video_schema("WanImageToVideo", "", seen_input(), *image_inputs("start_image"))

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
        """The conditionings with the video's start and its mask, and an empty latent."""
        sides, latent = (positive, negative), empty_video(batch_size, length, width, height)
        if start_image is not None:
            start = fitted(start_image[:length], width, height)
            video = grey_video(length, width, height, start)
            video[: len(start)] = start
            encoded = vae.encode(video)
            free = torch.ones((1, 1, latent["samples"].shape[2], *encoded.shape[-2:]), device=start.device, dtype=start.dtype)
            free[:, :, : (len(start) - 1) // FRAMES_PER_CELL + 1] = 0.0
            sides = with_values(sides, {"concat_latent_image": encoded, "concat_mask": free})
        return io.NodeOutput(*with_sight(sides, clip_vision_output), latent)


class WanFirstLastFrameToVideo(io.ComfyNode):
    """Makes a video begin and end with frames."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        seen = [seen_input(f"clip_vision_{which}_image") for which in ("start", "end")]
        return video_schema("WanFirstLastFrameToVideo", "", *seen, *image_inputs("start_image", "end_image"))

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
        end_image: Tensor | None = None,
        clip_vision_start_image: Output | None = None,
        clip_vision_end_image: Output | None = None,
    ) -> io.NodeOutput:
        """The conditionings with a video of the given frames, grey between them, and its mask; and an empty latent."""
        latent = empty_video(batch_size, length, width, height, vae.latent_channels, vae.spacial_compression_encode())
        video = grey_video(length, width, height)
        starts = 0 if start_image is None else len(start_image[:length])
        ends = 0 if end_image is None else len(end_image[-length:])
        if start_image is not None:
            video[:starts] = fitted(start_image[:length], width, height)
        if end_image is not None:
            video[-ends:] = fitted(end_image[-length:], width, height)
        values = {"concat_latent_image": vae.encode(video), "concat_mask": free_frames(latent["samples"], starts, ends)}
        seen = _both_seen(clip_vision_start_image, clip_vision_end_image)
        return io.NodeOutput(*with_sight(with_values((positive, negative), values), seen), latent)


def _both_seen(start: Output | None, end: Output | None) -> Any:
    """What an image encoder saw of both frames, one behind the other; of one, if there is but one."""
    if start is None or end is None:
        return end if start is None else start
    seen = clip_vision.Output()
    seen["penultimate_hidden_states"] = torch.cat([one["penultimate_hidden_states"] for one in (start, end)], dim=-2)
    return seen


class WanFunInpaintToVideo(io.ComfyNode):
    """Makes a video begin and end with frames, for models that were trained to fill what is between."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return video_schema("WanFunInpaintToVideo", "/fun inpaint", seen_input(), *image_inputs("start_image", "end_image"))

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
        end_image: Tensor | None = None,
        clip_vision_output: Output | None = None,
    ) -> io.NodeOutput:
        """The conditionings with a video of the given frames, grey between them, and its mask; and an empty latent."""
        sizes = (width, height, length, batch_size)
        return WanFirstLastFrameToVideo.execute(
            positive, negative, vae, *sizes, start_image=start_image, end_image=end_image, clip_vision_start_image=clip_vision_output
        )


class WanPhantomSubjectToVideo(io.ComfyNode):
    """Shows the model subjects, which stand behind the video in time."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        schema = video_schema("WanPhantomSubjectToVideo", "/phantom subject", *image_inputs("images"))
        names = ("positive", "negative_text", "negative_img_text")
        schema.outputs = [*(io.Conditioning.Output(display_name=name) for name in names), io.Latent.Output(display_name="latent")]
        return schema

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
        images: Tensor | None = None,
    ) -> io.NodeOutput:
        """The positive side and a negative one with the subjects, one with blank ones in their place; and an empty latent."""
        latent = empty_video(batch_size, length, width, height)
        if images is None:
            return io.NodeOutput(positive, negative, negative, latent)
        subjects = torch.cat([vae.encode(picture[None]) for picture in fitted(images[:length], width, height)], dim=2)
        positive, without_text = with_values((positive, negative), {"time_dim_concat": subjects})
        _, blank = with_values((positive, negative), {"time_dim_concat": blank_latent(subjects)})
        return io.NodeOutput(positive, without_text, blank, latent)


class Wan22ImageToVideoLatent(io.ComfyNode):
    """Makes latents for Wan 2.2 5B, beginning with one or more frames."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        sizes = size_inputs(1280, 704, 32, 32, length=(49, 1, FRAMES_PER_CELL))
        return io.Schema(
            node_id="Wan22ImageToVideoLatent",
            category="model/conditioning/wan",
            inputs=[io.Vae.Input("vae"), *sizes, *image_inputs("start_image")],
            outputs=[io.Latent.Output()],
        )

    @classmethod
    def execute(cls, vae: VAE, width: int, height: int, length: int, batch_size: int, start_image: Tensor | None = None) -> io.NodeOutput:
        """Without frames one empty latent; with them *batch_size* latents that begin with these, and the mask that keeps them."""
        wide = latent_formats.Wan22
        latent = empty_video(1, length, width, height, wide.latent_channels, wide.spacial_downscale_ratio)
        if start_image is None:
            return io.NodeOutput(latent)
        blank = blank_latent(latent["samples"])
        encoded = vae.encode(fitted(start_image[:length], width, height))
        mask = torch.ones_like(blank[:, :1])
        mask[:, :, : encoded.shape[2]] = 0.0
        samples = put_first(blank, encoded)
        repeated = (batch_size, 1, 1, 1, 1)
        return io.NodeOutput({"samples": samples.repeat(repeated), "noise_mask": mask.repeat(repeated)})


class WanCameraImageToVideo(io.ComfyNode):
    """Tells the model how the camera moves, and what the video begins with."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        camera = io.WanCameraEmbedding.Input("camera_conditions", optional=True)
        return video_schema("WanCameraImageToVideo", "/camera", seen_input(), *image_inputs("start_image"), camera)

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
        camera_conditions: Tensor | None = None,
    ) -> io.NodeOutput:
        """The conditionings with the start, its mask and the camera, and an empty latent."""
        sides, latent = (positive, negative), empty_video(batch_size, length, width, height)
        if start_image is not None:
            start = encoded_start(vae, start_image, blank_latent(latent["samples"]), width, height, length)
            mask = free_frames(latent["samples"], len(start_image[:length]))
            sides = with_values(sides, {"concat_latent_image": start, "concat_mask": mask})
        if camera_conditions is not None:
            sides = with_values(sides, {"camera_conditions": camera_conditions})
        return io.NodeOutput(*with_sight(sides, clip_vision_output), latent)
