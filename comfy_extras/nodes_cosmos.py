"""Nodes that make latents for Cosmos's videos: empty ones, and those that begin and end with pictures."""

from __future__ import annotations

from typing import TYPE_CHECKING

from comfy.lazy_import import lazy_module
from comfy_api.latest import io
from comfy_extras.empty_latents import empty_latent, size_inputs
from comfy_extras.node_extension import extension_of
from comfy_extras.wan_conditioning import blank_latent, fitted, grey_video, image_inputs

if TYPE_CHECKING:
    from torch import Tensor

    from comfy.images.vae import VAE

torch = lazy_module("torch")

CHANNELS, SIDE = 16, 8  # of a latent, and pixels of a cell's sides
FRAMES_PER_CELL = 8


class EmptyCosmosLatentVideo(io.ComfyNode):
    """Makes empty latents."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="EmptyCosmosLatentVideo",
            category="model/latent/cosmos",
            inputs=size_inputs(1280, 704, 16, length=(121, 1, 8)),
            outputs=[io.Latent.Output()],
        )

    @classmethod
    def execute(cls, width: int, height: int, length: int, batch_size: int = 1) -> io.NodeOutput:
        """Latents of 16 channels, a cell per 8×8 pixels and 8 frames (the first frame has one of its own)."""
        return io.NodeOutput(empty_latent(batch_size, CHANNELS, (length - 1) // FRAMES_PER_CELL + 1, height // SIDE, width // SIDE))


class CosmosImageToVideoLatent(io.ComfyNode):
    """Makes latents of Cosmos 1 that begin and end with pictures."""

    NODE_ID = "CosmosImageToVideoLatent"
    USUAL = (1280, 704, 121)  # width, height, frames
    STEP = 8  # frames for a cell

    @classmethod
    def define_schema(cls) -> io.Schema:
        width, height, length = cls.USUAL
        return io.Schema(
            node_id=cls.NODE_ID,
            category="model/conditioning/cosmos",
            inputs=[
                io.Vae.Input("vae"),
                *size_inputs(width, height, 16, length=(length, 1, cls.STEP)),
                *image_inputs("start_image", "end_image"),
            ],
            outputs=[io.Latent.Output()],
        )

    @classmethod
    def execute(
        cls,
        vae: VAE,
        width: int,
        height: int,
        length: int,
        batch_size: int,
        start_image: Tensor | None = None,
        end_image: Tensor | None = None,
    ) -> io.NodeOutput:
        """Latents and the mask of what is free in them; without a picture a single empty one, whatever *batch_size* is."""
        latent = empty_latent(1, CHANNELS, (length - 1) // cls.STEP + 1, height // SIDE, width // SIDE)
        if start_image is None and end_image is None:
            return io.NodeOutput(latent)
        samples = cls._blank(latent["samples"])
        free = torch.ones_like(samples[:, :1])
        if start_image is not None:
            known = _encoded(vae, start_image, width, height, length, further=1)
            samples[:, :, : known.shape[2]], free[:, :, : known.shape[2]] = known, 0.0
        if end_image is not None:
            known = _encoded(vae, end_image, width, height, length, further=0)
            samples[:, :, -known.shape[2] :], free[:, :, -known.shape[2] :] = known, 0.0
        both = {"samples": samples, "noise_mask": free}
        return io.NodeOutput({**latent, **{name: value.repeat(batch_size, 1, 1, 1, 1) for name, value in both.items()}})

    @staticmethod
    def _blank(latent: Tensor) -> Tensor:
        """What stands where nothing is known."""
        return latent


class CosmosPredict2ImageToVideoLatent(CosmosImageToVideoLatent):
    """Makes latents of Cosmos-Predict2 that begin and end with pictures."""

    NODE_ID = "CosmosPredict2ImageToVideoLatent"
    USUAL = (848, 480, 93)
    STEP = 4

    @staticmethod
    def _blank(latent: Tensor) -> Tensor:
        return blank_latent(latent)


def _encoded(vae: VAE, pictures: Tensor, width: int, height: int, length: int, further: int) -> Tensor:
    """Latents of *pictures*, at most *length* of them, encoded with grey frames after them for *further* cells. Cells are of eight
    frames here, also where the model's are of four, as in ComfyUI: a few frames count as the first.
    """
    frames = fitted(pictures[:length], width, height)
    cells = (len(frames) - 1) // FRAMES_PER_CELL + 1
    whole = grey_video(min(length, (cells + further) * FRAMES_PER_CELL - 7), width, height)
    count = min(len(frames), len(whole))
    whole[:count] = frames[:count]
    return vae.encode(whole)[:, :, :cells]


comfy_entrypoint = extension_of(EmptyCosmosLatentVideo, CosmosImageToVideoLatent, CosmosPredict2ImageToVideoLatent)
