"""Nodes that make Wan's videos from sound: S2V's and HuMo's (part of ``nodes_wan``)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from comfy.lazy_import import lazy_module
from comfy_api.latest import io
from comfy_extras.empty_latents import size_inputs
from comfy_extras.wan_conditioning import (
    FRAMES_PER_CELL,
    Sides,
    blank_latent,
    cells,
    empty_video,
    fitted,
    grey_video,
    image_inputs,
    put_first,
    video_schema,
    with_values,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from comfy.images.vae import VAE
    from comfy_extras.node_values import Conditioning, Latent

    Heard = Mapping[str, Any]  # what an audio encoder gives

torch = lazy_module("torch")

HEARD_PER_SECOND = 50  # states of an audio encoder
# S2V: states per second before frames are picked, frames per second, frames before the video that it sees, and their latent ones.
PICKED_FROM, S2V_FRAMES = 30, 16
FRAMES_BEFORE, CELLS_BEFORE = 73, 19
# HuMo: frames per second, states around a frame that it hears, the first of them, and the layers of Whisper of which it takes means.
HUMO_FRAMES, HEARD_AROUND, HEARD_FROM = 25, 8, -5
LAYERS_TOGETHER, WHISPER_LAYERS, WHISPER_WIDTH = 8, 32, 1280
SAMPLES_PER_FRAME = 640


def _heard_input() -> io.Input:
    return io.AudioEncoderOutput.Input("audio_encoder_output", optional=True)


def at_rate(states: Tensor, rate: int) -> Tensor:
    """*states* (B x N x C, 50 per second) at *rate* per second."""
    length = int(states.shape[1] / float(HEARD_PER_SECOND) * rate)
    changed = torch.nn.functional.interpolate(states.transpose(1, 2), size=length, align_corners=True, mode="linear")
    return changed.transpose(1, 2)


def s2v_sound(heard: Heard, length: int, offset: int) -> Tensor | None:
    """What S2V hears in the video of *length* frames from frame *offset* on: 1 x layers x C x frames; None behind the end of the sound."""
    states = at_rate(torch.cat(list(heard["encoded_audio_all_layers"])), PICKED_FROM)
    frames = cells(length) * FRAMES_PER_CELL
    pieces = int(states.shape[1] / (frames * (PICKED_FROM / S2V_FRAMES))) + 1
    picked = (torch.arange(pieces * frames, dtype=torch.float64) * (PICKED_FROM / S2V_FRAMES)).round().long()
    silent = picked >= states.shape[1]
    chosen = states[:, picked.clamp(max=states.shape[1] - 1).to(states.device)]
    chosen = chosen.masked_fill(silent.to(states.device)[None, :, None], 0.0)[:, offset : offset + frames]
    return chosen.movedim(1, 2)[None] if chosen.shape[1] else None


def _s2v(
    sides: Sides,
    vae: VAE,
    sizes: tuple[int, int, int, int],
    offset: int,
    heard: Heard | None,
    ref_image: Tensor | None,
    control_video: Tensor | None,
    before: Tensor | None,
) -> io.NodeOutput:
    """Both conditionings and an empty latent, for *sizes* (width, height, length, batch); *before*: the latent of the frames before."""
    width, height, length, batch = sizes
    sound = None if heard is None else s2v_sound(heard, length, offset)
    if sound is not None:
        silence = torch.zeros_like(sound)
        sides = (with_values(sides, {"audio_embed": sound})[0], with_values(sides, {"audio_embed": silence})[1])
    if ref_image is not None:
        sides = with_values(sides, {"reference_latents": [vae.encode(fitted(ref_image[:1], width, height))]}, append=True)
    if before is not None:
        sides = with_values(sides, {"reference_motion": before[:, :, -CELLS_BEFORE:]})
    latent = empty_video(batch, length, width, height)
    control = blank_latent(latent["samples"])
    if control_video is not None:
        control = put_first(control, vae.encode(fitted(control_video[:length], width, height)))
    return io.NodeOutput(*with_values(sides, {"control_video": control}), latent)


class WanSoundImageToVideo(io.ComfyNode):
    """Makes a video go with sound, a picture, and a control video."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        pictures = image_inputs("ref_image", "control_video", "ref_motion")
        return video_schema("WanSoundImageToVideo", "/sound", _heard_input(), *pictures, length=77)

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
        audio_encoder_output: Heard | None = None,
        control_video: Tensor | None = None,
        ref_motion: Tensor | None = None,
    ) -> io.NodeOutput:
        """The conditionings and an empty latent. Of *ref_motion* the last 73 frames count; grey ones stand before fewer."""
        before = None
        if ref_motion is not None:
            moved = fitted(ref_motion[-FRAMES_BEFORE:], width, height)
            missing = grey_video(FRAMES_BEFORE - len(moved), width, height, moved)
            before = vae.encode(torch.cat((missing, moved)))
        sizes = (width, height, length, batch_size)
        return _s2v((positive, negative), vae, sizes, 0, audio_encoder_output, ref_image, control_video, before)


class WanSoundImageToVideoExtend(io.ComfyNode):
    """Goes on with a video, with the sound that comes after it."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        sides = [io.Conditioning.Input(name) for name in ("positive", "negative")]
        (length,) = (one for one in size_inputs(832, 480, 16, length=(77, 1, FRAMES_PER_CELL)) if one.id == "length")
        given = [io.Conditioning.Output(display_name=name) for name in ("positive", "negative")]
        return io.Schema(
            node_id="WanSoundImageToVideoExtend",
            category="model/conditioning/wan/sound",
            inputs=[
                *sides,
                io.Vae.Input("vae"),
                length,
                io.Latent.Input("video_latent"),
                _heard_input(),
                *image_inputs("ref_image", "control_video"),
            ],
            outputs=[*given, io.Latent.Output(display_name="latent")],
        )

    @classmethod
    def execute(
        cls,
        positive: Conditioning,
        negative: Conditioning,
        vae: VAE,
        length: int,
        video_latent: Latent,
        ref_image: Tensor | None = None,
        audio_encoder_output: Heard | None = None,
        control_video: Tensor | None = None,
    ) -> io.NodeOutput:
        """The conditionings and an empty latent of the same size, which begins where *video_latent* ends."""
        before = video_latent["samples"]
        batch, _, done, rows, columns = before.shape
        sizes = (columns * 8, rows * 8, length, batch)
        return _s2v((positive, negative), vae, sizes, done * FRAMES_PER_CELL, audio_encoder_output, ref_image, control_video, before)


def humo_sound(heard: Heard, length: int) -> Tensor:
    """What HuMo hears around each latent frame of a video of *length* frames: 1 x cells x 8 x 5 x 1280.

    Raises ``ValueError`` for another encoder than Whisper's largest.
    """
    every = heard["encoded_audio_all_layers"]
    if len(every) <= WHISPER_LAYERS:
        raise ValueError(f"HuMo hears by the largest Whisper, of {WHISPER_LAYERS} layers; the audio encoder has {len(every) - 1}")
    states = torch.stack(list(every), dim=2)[:, : heard["audio_samples"] // SAMPLES_PER_FRAME * 2]
    groups = [states[:, :, start : start + LAYERS_TOGETHER].mean(dim=2) for start in range(0, WHISPER_LAYERS, LAYERS_TOGETHER)]
    frames = torch.stack([at_rate(group, HUMO_FRAMES) for group in (*groups, states[:, :, WHISPER_LAYERS])], dim=2)[0]
    first = torch.arange(cells(length)) * FRAMES_PER_CELL + HEARD_FROM
    around = first[:, None] + torch.arange(HEARD_AROUND)
    silent = ((around < 0) | (around >= len(frames))).to(frames.device)
    return frames[around.clamp(0, len(frames) - 1).to(frames.device)].masked_fill(silent[..., None, None], 0.0)[None]


class WanHuMoImageToVideo(io.ComfyNode):
    """Makes a video go with sound and a picture of who is to be seen."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        inputs = (_heard_input(), *image_inputs("ref_image"))
        return video_schema("WanHuMoImageToVideo", "/humo", *inputs, length=97, is_experimental=True)

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
        audio_encoder_output: Heard | None = None,
    ) -> io.NodeOutput:
        """The conditionings, the negative one with zeros for picture and sound, and an empty latent."""
        latent = empty_video(batch_size, length, width, height)
        zeros: Any = torch.zeros_like(latent["samples"][:, :, :1])
        reference = zeros if ref_image is None else vae.encode(fitted(ref_image[:1], width, height))
        silence = torch.zeros((batch_size, cells(length) + 1, HEARD_AROUND, 5, WHISPER_WIDTH), device=zeros.device)
        sound = silence if audio_encoder_output is None else humo_sound(audio_encoder_output, length)
        told = ((reference, sound), (torch.zeros_like(reference), torch.zeros_like(sound)))
        sides = (
            with_values(with_values((side, side), {"reference_latents": [shown]}, append=True), {"audio_embed": heard})[0]
            for side, (shown, heard) in zip((positive, negative), told, strict=True)
        )
        return io.NodeOutput(*sides, latent)
