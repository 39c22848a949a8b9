"""Nodes for LTX's latents: empty ones, those that begin with a picture, and those of a video and its sound as one."""

from __future__ import annotations

from io import BytesIO
from typing import TYPE_CHECKING, Any

import comfy.utils
from comfy.lazy_import import lazy_module
from comfy.nested_tensor import NestedTensor
from comfy_api.latest import io
from comfy_extras.empty_latents import empty_latent, size_inputs
from comfy_extras.ltx_guides import CATEGORY, CHANNELS, get_noise_mask

if TYPE_CHECKING:
    from torch import Tensor

    from comfy.images.vae import VAE
    from comfy_extras.node_values import Conditioning, Latent

av = lazy_module("av")
torch = lazy_module("torch")

LATENTS = "model/latent/ltxv"
PIXELS_PER_CELL, FRAMES_PER_CELL = 32, 8


def _sizes(fewest: int = 1) -> list[io.Input]:
    return size_inputs(768, 512, PIXELS_PER_CELL, 64, length=(97, fewest, FRAMES_PER_CELL))


def _strength() -> io.Float.Input:
    return io.Float.Input("strength", default=1.0, min=0.0, max=1.0)


def _empty(width: int, height: int, length: int, batch_size: int, **values: Any) -> Latent:
    frames = (length - 1) // FRAMES_PER_CELL + 1
    return empty_latent(batch_size, CHANNELS, frames, height // PIXELS_PER_CELL, width // PIXELS_PER_CELL, **values)


def _encoded(vae: VAE, image: Tensor, width: int, height: int) -> Tensor:
    """The latent of *image* as a video of that size."""
    if image.shape[1:3] != (height, width):
        image = comfy.utils.common_upscale(image.movedim(-1, 1), width, height, "bilinear", "center").movedim(1, -1)
    return vae.encode(image[..., :3])


class EmptyLTXVLatentVideo(io.ComfyNode):
    """Makes empty latents."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(node_id="EmptyLTXVLatentVideo", category=LATENTS, inputs=_sizes(), outputs=[io.Latent.Output()])

    @classmethod
    def execute(cls, width: int, height: int, length: int, batch_size: int = 1) -> io.NodeOutput:
        """Latents of 128 channels, a cell per 32×32 pixels and 8 frames (the first frame has one of its own)."""
        return io.NodeOutput(_empty(width, height, length, batch_size, downscale_ratio_spacial=PIXELS_PER_CELL))

    generate = execute


class LTXVImgToVideo(io.ComfyNode):
    """Makes latents that begin with a picture or video."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        sides = (io.Conditioning.Input("positive"), io.Conditioning.Input("negative"))
        made = (io.Conditioning.Output(display_name=name) for name in ("positive", "negative"))
        return io.Schema(
            node_id="LTXVImgToVideo",
            category=CATEGORY,
            inputs=[*sides, io.Vae.Input("vae"), io.Image.Input("image"), *_sizes(9), _strength()],
            outputs=[*made, io.Latent.Output(display_name="latent")],
        )

    @classmethod
    def execute(
        cls,
        positive: Conditioning,
        negative: Conditioning,
        image: Tensor,
        vae: VAE,
        width: int,
        height: int,
        length: int,
        batch_size: int,
        strength: float,
    ) -> io.NodeOutput:
        """The conditionings as they are, and the latent with a mask that keeps its beginning as far as *strength* says."""
        latent = _empty(width, height, length, batch_size)
        return io.NodeOutput(positive, negative, _begun(latent, _encoded(vae, image, width, height), strength))

    generate = execute


def _begun(latent: Latent, begin: Tensor, strength: float) -> Latent:
    """*latent* with *begin* as its first frames, which are kept as far as *strength* says."""
    samples, mask = latent["samples"].clone(), get_noise_mask(latent)
    samples[:, :, : begin.shape[2]] = begin
    mask[:, :, : begin.shape[2]] = 1.0 - strength
    return {"samples": samples, "noise_mask": mask}


class LTXVImgToVideoInplace(io.ComfyNode):
    """Puts a picture or video at the beginning of latents."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LTXVImgToVideoInplace",
            category=CATEGORY,
            inputs=[
                *(io.Vae.Input("vae"), io.Image.Input("image"), io.Latent.Input("latent"), _strength()),
                io.Boolean.Input("bypass", default=False, tooltip="Leave the latent as it is."),
            ],
            outputs=[io.Latent.Output(display_name="latent")],
        )

    @classmethod
    def execute(cls, vae: VAE, image: Tensor, latent: Latent, strength: float, bypass: bool = False) -> io.NodeOutput:
        """The latent with a mask that keeps its beginning as far as *strength* says; with *bypass* as it was."""
        if bypass:
            return io.NodeOutput(latent)
        factors: Any = vae.downscale_index_formula
        height, width = latent["samples"].shape[3:]
        return io.NodeOutput(_begun(latent, _encoded(vae, image, width * factors[2], height * factors[1]), strength))

    generate = execute


def preprocess(image: Tensor, crf: int = 29) -> Tensor:
    """*image* (height x width x 3, 0 to 1) as a frame of an H.264 video of the quality *crf* shows it; 0 leaves it as it is.

    Odd sides lose a row or column. Needs PyAV.
    """
    if crf == 0:
        return image
    height, width = (length // 2 * 2 for length in image.shape[:2])
    levels = image[:height, :width].mul(255.0).byte().cpu().numpy()
    shown = _as_a_video_shows(av.VideoFrame.from_ndarray(levels, format="rgb24"), {"preset": "veryfast", "crf": str(crf)})
    return torch.from_numpy(shown).to(image) / 255.0


def _as_a_video_shows(picture: Any, options: dict[str, str]) -> Any:
    """The levels of *picture*, a frame, after it was the only one of an H.264 video made with *options*."""
    file = BytesIO()
    with av.open(file, "w", format="mp4") as video:
        stream = video.add_stream("libx264", rate=1, options=options)
        stream.width, stream.height = picture.width, picture.height
        for frame in (picture.reformat(format="yuv420p"), None):
            video.mux(stream.encode(frame))
    file.seek(0)
    with av.open(file) as video:
        return next(video.decode(video=0)).to_ndarray(format="rgb24")


class LTXVPreprocess(io.ComfyNode):
    """Makes pictures look like frames of a video, as LTX was trained with."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        quality = io.Int.Input("img_compression", default=35, min=0, max=100, tooltip="How strongly the picture is compressed; 0: not.")
        return io.Schema(
            node_id="LTXVPreprocess",
            display_name="LTXV Preprocess",
            category="video/preprocessors",
            inputs=[io.Image.Input("image"), quality],
            outputs=[io.Image.Output(display_name="output_image")],
        )

    @classmethod
    def execute(cls, image: Tensor, img_compression: int) -> io.NodeOutput:
        """Each picture, compressed and read back."""
        return io.NodeOutput(torch.stack([preprocess(picture, img_compression) for picture in image]))

    preprocess = execute


class LTXVConcatAVLatent(io.ComfyNode):
    """Joins the latents of a video and of its sound."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LTXVConcatAVLatent",
            display_name="Concat AV Latent",
            description="Joins the latents of a video and of sound into one, for models that make both.",
            category=LATENTS,
            inputs=[io.Latent.Input("video_latent"), io.Latent.Input("audio_latent")],
            outputs=[io.Latent.Output(display_name="latent")],
        )

    @classmethod
    def execute(cls, video_latent: Latent, audio_latent: Latent) -> io.NodeOutput:
        """Both in one; of a *video_latent* that has sound this is replaced, by as much of the new one as it is long."""
        video, sound = video_latent["samples"], audio_latent["samples"]
        masks = [video_latent.get("noise_mask"), audio_latent.get("noise_mask")]
        if video.is_nested:
            video, replaced = video.unbind()[:2]
            masks[0] = None if masks[0] is None else masks[0].unbind()[0]
            sound, masks[1] = fit_audio(replaced, sound, masks[1])
        joined = {**video_latent, **audio_latent, "samples": NestedTensor((video, sound))}
        if any(mask is not None for mask in masks):
            filled = (torch.ones_like(part) if mask is None else mask for part, mask in zip((video, sound), masks))
            joined["noise_mask"] = NestedTensor(filled)
        return io.NodeOutput(joined)


def fit_audio(reference: Tensor, audio: Tensor, noise_mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """*audio* and its mask as long as *reference*: cut, or with zeros at the end, which are to be made.

    Raises ``ValueError`` for latents that differ in more than their length.
    """
    differing = [axis for axis in range(reference.ndim) if reference.shape[axis] != audio.shape[axis]]
    if not differing:
        return audio, noise_mask
    if len(differing) > 1 or differing[0] < 2:
        raise ValueError(f"sound of the shape {tuple(audio.shape)} cannot take the place of one of {tuple(reference.shape)}")
    axis = differing[0]
    length, missing = reference.shape[axis], reference.shape[axis] - audio.shape[axis]
    if noise_mask is not None:
        noise_mask = comfy.utils.reshape_mask(noise_mask, audio.shape)
    if missing < 0:
        return audio.narrow(axis, 0, length), None if noise_mask is None else noise_mask.narrow(axis, 0, length)
    shape = [missing if at == axis else size for at, size in enumerate(audio.shape)]
    mask = None if noise_mask is None else torch.cat((noise_mask, noise_mask.new_ones(shape)), dim=axis)
    return torch.cat((audio, audio.new_zeros(shape)), dim=axis), mask


class LTXVSeparateAVLatent(io.ComfyNode):
    """Takes the latents of a video and of its sound apart."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LTXVSeparateAVLatent",
            display_name="Separate AV Latent",
            category=LATENTS,
            description="Takes a latent of a video with sound apart, of any model that makes both.",
            inputs=[io.Latent.Input("av_latent")],
            outputs=[io.Latent.Output(display_name="video_latent"), io.Latent.Output(display_name="audio_latent")],
        )

    @classmethod
    def execute(cls, av_latent: Latent) -> io.NodeOutput:
        """Both, with their masks. Raises ``ValueError`` for a latent without sound."""
        if not av_latent["samples"].is_nested:
            raise ValueError("this latent has no sound to separate; connect one of a video with sound")
        parts = av_latent["samples"].unbind()
        masks = None if av_latent.get("noise_mask") is None else av_latent["noise_mask"].unbind()
        given = ({} if masks is None else {"noise_mask": mask} for mask in masks or parts)
        return io.NodeOutput(*({**av_latent, "samples": part, **mask} for part, mask in zip(parts[:2], given)))
