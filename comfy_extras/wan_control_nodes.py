"""Nodes that give Wan's models videos to go by."""

from __future__ import annotations

from typing import TYPE_CHECKING

import comfy.utils
from comfy.lazy_import import lazy_module
from comfy_api.latest import io
from comfy_extras.wan_conditioning import (
    GREY,
    blank_latent,
    empty_video,
    encoded_start,
    fitted,
    free_frames,
    grey_video,
    image_inputs,
    seen_input,
    video_schema,
    with_sight,
    with_values,
)

if TYPE_CHECKING:
    from torch import Tensor

    from comfy.clip_vision import Output
    from comfy.images.vae import VAE
    from comfy_extras.node_values import Conditioning, Latent

torch = lazy_module("torch")

SIDE = 8  # pixels of a cell of Wan 2.1's latents, along one side


class WanFunControlToVideo(io.ComfyNode):
    """Gives Wan 2.1's control models a video to go by, and what the new one begins with."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return video_schema("WanFunControlToVideo", "/fun control", seen_input(), *image_inputs("start_image", "control_video"))

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
        control_video: Tensor | None = None,
    ) -> io.NodeOutput:
        """The conditionings with the latents of both (blank where there is none), and an empty latent."""
        latent = empty_video(batch_size, length, width, height)
        blank = blank_latent(latent["samples"])
        both = [
            blank if video is None else encoded_start(vae, video, blank, width, height, length) for video in (control_video, start_image)
        ]
        sides = with_values((positive, negative), {"concat_latent_image": torch.cat(both, dim=1)})
        return io.NodeOutput(*with_sight(sides, clip_vision_output), latent)


class Wan22FunControlToVideo(io.ComfyNode):
    """Gives Wan 2.2's control models a video to go by, and a picture of what is in it."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return video_schema("Wan22FunControlToVideo", "/fun control", *image_inputs("ref_image", "control_video"))

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
        ref_image: Tensor | None = None,
        start_image: Tensor | None = None,
        control_video: Tensor | None = None,
    ) -> io.NodeOutput:
        """The conditionings with the video's latent, a start's and its mask, and the picture's; and an empty latent."""
        channels = vae.latent_channels
        latent = empty_video(batch_size, length, width, height, channels, vae.spacial_compression_encode())
        blank = blank_latent(latent["samples"])
        both = [
            blank if video is None else encoded_start(vae, video, blank, width, height, length) for video in (control_video, start_image)
        ]
        mask = free_frames(latent["samples"], 0 if start_image is None else len(start_image[:length]))
        values = {"concat_latent_image": torch.cat(both, dim=1), "concat_mask": mask, "concat_mask_index": channels}
        sides = with_values((positive, negative), values)
        if ref_image is not None:
            reference = vae.encode(fitted(ref_image[:1], width, height))
            sides = with_values(sides, {"reference_latents": [reference]}, append=True)
        return io.NodeOutput(*sides, latent)


class WanVaceToVideo(io.ComfyNode):
    """Gives VACE a video to go by, where it may be changed, and a picture of what is in it."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return video_schema(
            "WanVaceToVideo",
            "/vace",
            io.Float.Input("strength", default=1.0, min=0.0, max=1000.0, step=0.01),
            *image_inputs("control_video"),
            io.Mask.Input("control_masks", optional=True),
            *image_inputs("reference_image"),
            outputs=(io.Int.Output(display_name="trim_latent"),),
            search_aliases=["video conditioning", "video control"],
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
        strength: float,
        control_video: Tensor | None = None,
        control_masks: Tensor | None = None,
        reference_image: Tensor | None = None,
    ) -> io.NodeOutput:
        """The conditionings, an empty latent, and how many of its first frames are the picture's, to be cut off again."""
        video = grey_video(length, width, height)
        if control_video is not None:
            given = fitted(control_video[:length], width, height)
            video[: len(given)] = given
        free = _free_pixels(control_masks, length, width, height)
        kept, changed = ((video - GREY) * share + GREY for share in (1 - free, free))
        latents = torch.cat((vae.encode(kept), vae.encode(changed)), dim=1)
        del video, kept, changed
        masks = _mask_channels(free[..., 0], latents.shape[2])
        before = 0
        if reference_image is not None:
            reference = vae.encode(fitted(reference_image[:1], width, height))
            before = reference.shape[2]
            latents = torch.cat((torch.cat((reference, blank_latent(reference)), dim=1), latents), dim=2)
            masks = torch.cat((torch.zeros_like(masks[:, :, :before]), masks), dim=2)
        values = {"vace_frames": [latents], "vace_mask": [masks], "vace_strength": [strength]}
        sides = with_values((positive, negative), values, append=True)
        latent = empty_video(batch_size, 4 * (latents.shape[2] - 1) + 1, width, height)
        return io.NodeOutput(*sides, latent, before)


def _free_pixels(masks: Tensor | None, length: int, width: int, height: int) -> Tensor:
    """*masks* (F x H x W, 1 where the video may be changed; None: everywhere) as *length* frames x *height* x *width* x 1."""
    free = torch.ones((length, height, width, 1))
    if masks is not None:
        planes = masks.unsqueeze(1) if masks.ndim == 3 else masks
        given = comfy.utils.common_upscale(planes[:length], width, height, "bilinear", "center").movedim(1, -1)
        free[: len(given)] = given
    return free


def _mask_channels(free: Tensor, frames: int) -> Tensor:
    """*free* (frames x height x width) for *frames* latent ones: 1 x 64 pixels of a cell x latent frames x rows x columns."""
    by_pixel = torch.nn.functional.pixel_unshuffle(free[:, None], SIDE).transpose(0, 1)
    return torch.nn.functional.interpolate(by_pixel[None], size=(frames, *by_pixel.shape[-2:]), mode="nearest-exact")


class TrimVideoLatent(io.ComfyNode):
    """Cuts the first frames off a latent."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="TrimVideoLatent",
            display_name="Trim Video Latent",
            category="model/latent",
            inputs=[io.Latent.Input("samples"), io.Int.Input("trim_amount", default=0, min=0, max=99999)],
            outputs=[io.Latent.Output()],
        )

    @classmethod
    def execute(cls, samples: Latent, trim_amount: int) -> io.NodeOutput:
        """The latent without its first *trim_amount* frames."""
        return io.NodeOutput({**samples, "samples": samples["samples"][:, :, trim_amount:]})
