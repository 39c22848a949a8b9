"""The node for Bernini, which edits videos by videos and pictures that it looks at."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import comfy.utils
from comfy_api.latest import io
from comfy_extras.empty_latents import size_inputs
from comfy_extras.node_extension import extension_of
from comfy_extras.wan_conditioning import FRAMES_PER_CELL, empty_video, fitted, image_inputs, with_values

if TYPE_CHECKING:
    from torch import Tensor

    from comfy.images.vae import VAE
    from comfy_extras.node_values import Conditioning

GRID, MAX_SIDE, MOST_PICTURES = 16, 8192, 8


class BerniniConditioning(io.ComfyNode):
    """Gives a model of Wan 2.2 14B videos and pictures to look at: what is edited, what comes into it, what it looks like."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        picture = io.Image.Input("reference_image", tooltip="A picture of something that the video shows.")
        pictures = io.Autogrow.TemplatePrefix(input=picture, prefix="reference_image_", min=0, max=MOST_PICTURES)
        return io.Schema(
            node_id="BerniniConditioning",
            display_name="Bernini Conditioning",
            category="model/conditioning/bernini",
            description="Shows the model a video to edit, a video to insert, and pictures. What is connected says what it does: nothing "
            "(text to video), a source video (video to video), pictures, or several of them.",
            inputs=[
                io.Conditioning.Input("positive"),
                io.Conditioning.Input("negative"),
                io.Vae.Input("vae"),
                *size_inputs(832, 480, GRID, length=(81, 1, FRAMES_PER_CELL), highest=MAX_SIDE),
                *image_inputs("source_video", "reference_video"),
                io.Autogrow.Input("reference_images", optional=True, template=pictures),
                io.Int.Input("ref_max_size", default=848, min=GRID, max=MAX_SIDE, step=GRID, optional=True),
            ],
            outputs=[
                io.Conditioning.Output(display_name="positive"),
                io.Conditioning.Output(display_name="negative"),
                io.Latent.Output(display_name="latent"),
            ],
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
        source_video: Tensor | None = None,
        reference_video: Tensor | None = None,
        reference_images: Mapping[str, Tensor | None] | None = None,
        ref_max_size: int = 848,
    ) -> io.NodeOutput:
        """The conditionings with the latents of what there is to look at, and an empty latent.

        The source video gets the new one's size; the others keep their proportions, with no side over *ref_max_size*.
        """
        videos = []
        if source_video is not None:
            videos.append(fitted(source_video[:length], width, height, "area"))
        if reference_video is not None:
            videos.append(_with_longest_side(reference_video[:length], ref_max_size))
        given = {name: batch for name, batch in (reference_images or {}).items() if batch is not None}
        pictures = [picture[None] for name in sorted(given) for picture in given[name]]
        videos += [_with_longest_side(picture, ref_max_size) for picture in pictures]
        sides = (positive, negative)
        if videos:
            sides = with_values(sides, {"context_latents": [vae.encode(video) for video in videos]})
        return io.NodeOutput(*sides, empty_video(batch_size, length, width, height))


def _with_longest_side(video: Tensor, longest: int) -> Tensor:
    """*video* (F x H x W x C) made smaller until no side is over *longest*, sides in multiples of the grid."""
    scale = min(1.0, longest / max(video.shape[1:3]))
    height, width = (max(GRID, round(side * scale / GRID) * GRID) for side in video.shape[1:3])
    return comfy.utils.common_upscale(video[..., :3].movedim(-1, 1), width, height, "area", "disabled").movedim(1, -1)


comfy_entrypoint = extension_of(BerniniConditioning)
