"""Nodes for Wan models that make videos some frames at a time (Causal Forcing, Self-Forcing)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import comfy.samplers
from comfy.lazy_import import lazy_module
from comfy_api.latest import io
from comfy_extras.empty_latents import empty_latent, size_inputs
from comfy_extras.node_extension import extension_of

if TYPE_CHECKING:
    from torch import Tensor

    from comfy.images.vae import VAE
    from comfy.model_patcher import ModelPatcher
    from comfy_extras.node_values import Latent

scaling = lazy_module("comfy.utils")

CHANNELS, PIXELS_PER_CELL, FRAMES_PER_CELL = 16, 8, 4


def _sizes() -> list[Any]:
    width, height, _, batch = size_inputs(832, 480, 16, highest=8192, length=(81, 1, 4), max_batch=64)
    return [width, height, io.Int.Input("length", default=81, min=1, max=1024, step=FRAMES_PER_CELL), batch]


def _empty(width: int, height: int, length: int, batch_size: int) -> Latent:
    frames = (length - 1) // FRAMES_PER_CELL + 1
    return empty_latent(batch_size, CHANNELS, frames, height // PIXELS_PER_CELL, width // PIXELS_PER_CELL)


class EmptyARVideoLatent(io.ComfyNode):
    """Makes zero latents of videos."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        outputs: list[Any] = [io.Latent.Output(display_name="LATENT")]
        return io.Schema(node_id="EmptyARVideoLatent", category="model/latent/autoregressive", inputs=_sizes(), outputs=outputs)

    @classmethod
    def execute(cls, width: int, height: int, length: int, batch_size: int) -> io.NodeOutput:
        """*batch_size* latents for videos of *length* frames."""
        return io.NodeOutput(_empty(width, height, length, batch_size))


class SamplerARVideo(io.ComfyNode):
    """Makes the sampler that makes videos some frames at a time."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        told = "Latent frames at a time, as the model was trained: 1 frame by frame, 3 in chunks."
        return io.Schema(
            node_id="SamplerARVideo",
            display_name="Sampler AR Video",
            category="model/sampling/samplers",
            inputs=[io.Int.Input("num_frame_per_block", default=1, min=1, max=64, tooltip=told)],
            outputs=[io.Sampler.Output()],
        )

    @classmethod
    def execute(cls, num_frame_per_block: int) -> io.NodeOutput:
        """The sampler."""
        return io.NodeOutput(comfy.samplers.ksampler("ar_video", {"num_frame_per_block": num_frame_per_block}))


class ARVideoI2V(io.ComfyNode):
    """Lets a video begin with a picture."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="ARVideoI2V",
            category="model/conditioning/autoregressive",
            inputs=[io.Model.Input("model"), io.Vae.Input("vae"), io.Image.Input("start_image"), *_sizes()],
            outputs=[io.Model.Output(display_name="MODEL"), io.Latent.Output(display_name="LATENT")],
        )

    @classmethod
    def execute(
        cls, model: ModelPatcher, vae: VAE, start_image: Tensor, width: int, height: int, length: int, batch_size: int
    ) -> io.NodeOutput:
        """A clone that knows the picture (the first of *start_image*), and a latent for the whole video."""
        picture = scaling.common_upscale(start_image[:1, ..., :3].movedim(-1, 1), width, height, "bilinear", "center").movedim(1, -1)
        clone = model.clone()
        options = clone.model_options["transformer_options"]
        options["ar_config"] = {**options.get("ar_config", {}), "initial_latent": vae.encode(picture)}
        return io.NodeOutput(clone, _empty(width, height, length, batch_size))


comfy_entrypoint = extension_of(EmptyARVideoLatent, SamplerARVideo, ARVideoI2V)
