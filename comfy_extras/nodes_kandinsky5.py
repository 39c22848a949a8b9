"""Kandinsky 5's nodes: what a video begins with, the brightness of its first frames, and one text for each of its text encoders."""

from __future__ import annotations

from typing import TYPE_CHECKING

from comfy.lazy_import import lazy_module
from comfy_api.latest import io
from comfy_extras.empty_latents import size_inputs
from comfy_extras.node_extension import extension_of
from comfy_extras.node_inputs import MAX_RESOLUTION
from comfy_extras.prompt_texts import prompt_input, with_texts
from comfy_extras.wan_conditioning import FRAMES_PER_CELL, cells, empty_video, fitted, image_inputs, with_values

if TYPE_CHECKING:
    from torch import Tensor

    from comfy.images.vae import VAE
    from comfy.text.encoder import CLIP
    from comfy_extras.node_values import Conditioning, Latent

torch = lazy_module("torch")

EPS = 1e-8
MEAN_BELOW, MEAN_ABOVE = 0.3, 0.35  # how far the mean of a first frame is moved at most
DEVIATION_BELOW, DEVIATION_ABOVE = 0.35, 0.5


class Kandinsky5ImageToVideo(io.ComfyNode):
    """Makes a video begin with one or more frames."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        clean = "Clean encoded start images, used to replace the noisy start of the model output latents"
        return io.Schema(
            node_id="Kandinsky5ImageToVideo",
            category="model/conditioning/kandinsky",
            inputs=[
                *(io.Conditioning.Input(side) for side in ("positive", "negative")),
                io.Vae.Input("vae"),
                *size_inputs(768, 512, 16, length=(121, 1, FRAMES_PER_CELL)),
                *image_inputs("start_image"),
            ],
            outputs=[
                *(io.Conditioning.Output(display_name=side) for side in ("positive", "negative")),
                io.Latent.Output(display_name="latent", tooltip="Empty video latent"),
                io.Latent.Output(display_name="cond_latent", tooltip=clean),
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
        start_image: Tensor | None = None,
    ) -> io.NodeOutput:
        """The conditionings with the start's latent and its mask, an empty latent, and the start's latent ({} without one)."""
        latent, sides, start = empty_video(batch_size, length, width, height), (positive, negative), {}
        if start_image is not None:
            frames = fitted(start_image[:length], width, height)
            start["samples"] = encoded = vae.encode(frames)
            free = torch.ones((1, 1, *latent["samples"].shape[2:]), device=frames.device, dtype=frames.dtype)
            free[:, :, : cells(len(frames))] = 0.0
            sides = with_values(sides, {"time_dim_replace": encoded, "concat_mask": free})
        return io.NodeOutput(*sides, latent, start)


class NormalizeVideoLatentStart(io.ComfyNode):
    """Makes the first frames of a video as bright and as full of contrast as those that follow."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        counts = {
            "start_frame_count": (4, "Number of latent frames to normalize, counted from the start"),
            "reference_frame_count": (5, "Number of latent frames after the start frames to use as reference"),
        }
        return io.Schema(
            node_id="NormalizeVideoLatentStart",
            category="model/conditioning",
            description="Moves mean and deviation of a video's first latent frames towards those of the frames that follow.",
            inputs=[
                io.Latent.Input("latent"),
                *(
                    io.Int.Input(name, default=default, min=1, max=MAX_RESOLUTION, step=1, tooltip=tooltip)
                    for name, (default, tooltip) in counts.items()
                ),
            ],
            outputs=[io.Latent.Output(display_name="latent")],
        )

    @classmethod
    def execute(cls, latent: Latent, start_frame_count: int, reference_frame_count: int) -> io.NodeOutput:
        """The latent with changed first frames; *latent* itself where no frames follow these."""
        samples = latent["samples"]
        first = samples[:, :, :start_frame_count]
        following = samples[:, :, start_frame_count : start_frame_count + min(reference_frame_count, samples.shape[2] - 1)]
        if not following.numel():
            return io.NodeOutput(latent)
        changed = torch.cat((likened(first, following), samples[:, :, start_frame_count:]), dim=2)
        return io.NodeOutput({**latent, "samples": changed})


def likened(frames: Tensor, others: Tensor) -> Tensor:
    """*frames* (B x channels x frames x rows x columns), each with mean and deviation of all *others*, as far as the limits allow."""
    means, deviations = frames.mean(dim=(1, 3, 4), keepdim=True), frames.std(dim=(1, 3, 4), keepdim=True)
    mean = torch.clamp(others.mean(), means - MEAN_BELOW, means + MEAN_ABOVE)
    deviation = torch.clamp(others.std(), deviations - DEVIATION_BELOW, deviations + DEVIATION_ABOVE)
    return (frames - means) / (deviations + EPS) * deviation + mean


class CLIPTextEncodeKandinsky5(io.ComfyNode):
    """Encodes one text for each of Kandinsky 5's two text encoders."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CLIPTextEncodeKandinsky5",
            display_name="CLIP Text Encode (Kandinsky 5)",
            search_aliases=["kandinsky prompt"],
            category="model/conditioning/kandinsky",
            inputs=[io.Clip.Input("clip"), prompt_input("clip_l"), prompt_input("qwen25_7b")],
            outputs=[io.Conditioning.Output()],
        )

    @classmethod
    def execute(cls, clip: CLIP, clip_l: str, qwen25_7b: str) -> io.NodeOutput:
        """The conditioning."""
        return io.NodeOutput(clip.encode_from_tokens_scheduled(with_texts(clip, clip_l, qwen25_7b=qwen25_7b)))


comfy_entrypoint = extension_of(Kandinsky5ImageToVideo, NormalizeVideoLatentStart, CLIPTextEncodeKandinsky5)
