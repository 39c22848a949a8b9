"""Nodes for MiniMax H3: empty latents, pictures at frames of the video, pictures, videos and sounds that a prompt speaks of."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import node_helpers
from comfy.lazy_import import lazy_module
from comfy_api.latest import io
from comfy_extras.minimax_values import (
    CATEGORY,
    FPS,
    SHORTEST,
    SIDE,
    canvas,
    empty_with_sound,
    encoded_sound,
    in_size,
    on_grid,
    size_inputs,
    usable_length,
    video_of,
)
from comfy_extras.node_extension import extension_of

if TYPE_CHECKING:
    from torch import Tensor

    from comfy.images.vae import VAE
    from comfy.patching.patcher import ModelPatcher
    from comfy.text.encoder import CLIP
    from comfy_extras.audio_values import Audio
    from comfy_extras.node_values import Conditioning, Latent

kinds = lazy_module("comfy.model_sampling")
patching = lazy_module("comfy.patching.patched_models")
layout = lazy_module("comfy.ldm.minimax.layout")

LENGTH = "Frames at 24 per second, rounded up to 17 n + 5; the model was trained with 124 (5 s) to 362."
SHOWN_SHORT_SIDE = 2048
TURNS_PER_S = 2  # frames of a video that the text encoder looks at
MOST_SHIFT = 100.0

Shown = tuple[list[dict[str, Any]], list[dict[str, Any]]]


class EmptyMiniMaxH3LatentAV(io.ComfyNode):
    """Makes an empty latent of a video with its sound."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="EmptyMiniMaxH3LatentAV",
            display_name="Empty MiniMax H3 AV Latent",
            category="model/latent/minimax",
            description="An empty latent of a video with its sound, for MiniMax H3: 24 frames per second, 17 n + 5 of them.",
            inputs=size_inputs(LENGTH),
            outputs=[io.Latent.Output()],
        )

    @classmethod
    def execute(cls, width: int, height: int, length: int) -> io.NodeOutput:
        """The latent."""
        return io.NodeOutput(empty_with_sound(width, height, length)[0])


class MiniMaxH3ImageToVideo(io.ComfyNode):
    """Encodes a prompt, with pictures that the video begins or ends with."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="MiniMaxH3ImageToVideo",
            display_name="MiniMax H3 Image to Video",
            category=CATEGORY,
            inputs=[
                io.Clip.Input("clip"),
                io.Vae.Input("vae"),
                io.String.Input("prompt", multiline=True, dynamic_prompts=True),
                *size_inputs(LENGTH),
                *(io.Image.Input(name, optional=True) for name in ("first_frame", "last_frame")),
            ],
            outputs=[io.Conditioning.Output(display_name="positive"), io.Latent.Output()],
        )

    @classmethod
    def execute(
        cls,
        clip: CLIP,
        vae: VAE,
        prompt: str,
        width: int,
        height: int,
        length: int,
        first_frame: Tensor | None = None,
        last_frame: Tensor | None = None,
    ) -> io.NodeOutput:
        """The conditioning and an empty latent. The first frame is stretched to the video's size, the last one cut to it."""
        latent, frames = empty_with_sound(width, height, length)
        given = ((first_frame, 0, "disabled"), (last_frame, frames - 1, "center"))
        pictures = [(in_size(image[:1], width, height, crop), index) for image, index, crop in given if image is not None]
        conditioning = clip.encode_from_tokens_scheduled(clip.tokenize(prompt, images=[picture for picture, _ in pictures]))
        if pictures:
            keyframes = [{"resolved_frame_index": index, "latent": vae.encode(picture)} for picture, index in pictures]
            conditioning = node_helpers.conditioning_set_values(conditioning, {"minimax_keyframes": keyframes})
        return io.NodeOutput(conditioning, latent)


class MiniMaxH3AddGuide(io.ComfyNode):
    """Puts pictures or sound at a frame of the video."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="MiniMaxH3AddGuide",
            display_name="Add Guide for MiniMax H3",
            category=CATEGORY,
            description="Makes the video show a picture or a short clip, or sound like a recording, from a frame on. Nodes may follow each "
            "other.",
            inputs=[
                io.Conditioning.Input("positive"),
                io.Vae.Input("vae", optional=True, tooltip="The autoencoder of videos; needed with a picture."),
                io.Vae.Input("audio_vae", optional=True, tooltip="The autoencoder of sounds; needed with a sound."),
                io.Latent.Input("latent"),
                io.Image.Input(
                    "image",
                    optional=True,
                    tooltip="A picture, or the frames of a clip: 5, 22, 39 … (17 n + 5) of them are used, of fewer than 5 the first.",
                ),
                io.Audio.Input("audio", optional=True, tooltip="A sound that begins at the same frame, cut where the video ends."),
                io.Int.Input(
                    "frame_idx", default=0, min=-9999, max=9999, tooltip="The frame; negative numbers count from the end of the video."
                ),
            ],
            outputs=[io.Conditioning.Output(display_name="positive")],
        )

    @classmethod
    def execute(
        cls,
        positive: Conditioning,
        latent: Latent,
        frame_idx: int,
        vae: VAE | None = None,
        audio_vae: VAE | None = None,
        image: Tensor | None = None,
        audio: Audio | None = None,
    ) -> io.NodeOutput:
        """The conditioning with one more guide. Raises ``ValueError`` for guides outside the video or without their autoencoder."""
        video, sound = video_of(latent["samples"])
        if image is None and audio is None:
            raise ValueError("MiniMaxH3AddGuide has nothing to put at the frame; connect an image or an audio")
        spans = layout.FRAME_PER_TOKEN
        frames = sum(spans[cell % len(spans)] for cell in range(video.shape[2]))
        count = 1 if image is None or len(image) < SHORTEST else usable_length(len(image))
        first = frame_idx + (frames if frame_idx < 0 else 0)
        if first < 0 or first + count > frames:
            what = "the guide" if count == 1 else f"a guide of {count} frames"
            raise ValueError(f"{what} at the frame {frame_idx} is not within the {frames} frames of the video; choose another frame_idx")
        guide: dict[str, Any] = {"resolved_frame_index": first}
        if image is not None:
            if vae is None:
                raise ValueError("MiniMaxH3AddGuide needs the autoencoder of videos to encode the image; connect vae")
            guide["latent"] = vae.encode(in_size(image[:count], video.shape[4] * SIDE, video.shape[3] * SIDE, "center"))
        if audio is not None:
            if audio_vae is None:
                raise ValueError("MiniMaxH3AddGuide needs the autoencoder of sounds to encode the audio; connect audio_vae")
            left = math.floor(sound.shape[-1] - layout.FRAME_RESCALE * first)
            if left < 1:
                raise ValueError(f"the sound of the video has ended before the frame {frame_idx}; choose another frame_idx")
            guide["audio_latent"] = encoded_sound(audio_vae, audio)[..., :left].clone()
        guides = [*positive[0][1].get("minimax_keyframes", ()), guide]
        return io.NodeOutput(node_helpers.conditioning_set_values(positive, {"minimax_keyframes": guides}))


def _several(name: str, kind: Any, most: int, tooltip: str) -> io.Input:
    """An input that grows: *name* 0, 1 … of *kind*."""
    template = io.Autogrow.TemplatePrefix(input=kind.Input(name, tooltip=tooltip), prefix=f"{name}_", min=0, max=most)
    return io.Autogrow.Input(f"{name}s", optional=True, template=template)


class MiniMaxH3ReferenceToVideo(io.ComfyNode):
    """Encodes a prompt that speaks of pictures, videos and sounds: <Picture 1>, <Video 1>, <Audio 1> …"""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="MiniMaxH3ReferenceToVideo",
            display_name="MiniMax H3 Reference to Video",
            category=CATEGORY,
            description="Shows MiniMax H3 pictures, videos and sounds, of which the prompt speaks as <Picture 1>, <Video 1>, <Audio 1> …: "
            "pictures, then videos (a video's own sound before it), then other sounds, each counted from 1.",
            inputs=[
                io.Clip.Input("clip"),
                io.Vae.Input("vae"),
                io.Vae.Input("audio_vae"),
                io.String.Input("prompt", multiline=True, dynamic_prompts=True),
                *size_inputs(LENGTH),
                io.Combo.Input(
                    "ref_image_size",
                    options=["match", "max"],
                    default="match",
                    tooltip="match: pictures have at most as many pixels as the video. max: up to 2048 pixels on the short side, which is "
                    "nearer to the pictures and takes several times as long.",
                ),
                _several("ref_image", io.Image, 9, "A picture; it is made smaller where it is too large, never larger."),
                _several("ref_video", io.Image, 3, "The frames of a video, 24 per second; 2 to 15 seconds."),
                _several("ref_video_audio", io.Audio, 3, "The sound of the video of the same number."),
                _several("ref_audio", io.Audio, 3, "A sound of its own."),
            ],
            outputs=[io.Conditioning.Output(display_name="positive"), io.Latent.Output()],
        )

    @classmethod
    def execute(
        cls,
        clip: CLIP,
        vae: VAE,
        audio_vae: VAE,
        prompt: str,
        width: int,
        height: int,
        length: int,
        ref_image_size: str = "match",
        ref_images: Mapping[str, Tensor | None] | None = None,
        ref_videos: Mapping[str, Tensor | None] | None = None,
        ref_video_audios: Mapping[str, Audio | None] | None = None,
        ref_audios: Mapping[str, Audio | None] | None = None,
    ) -> io.NodeOutput:
        """The conditioning and an empty latent. Raises ``ValueError`` for videos of fewer than five frames."""
        latent, frames = empty_with_sound(width, height, length)
        told: list[dict[str, Any]] = []  # what the text encoder is told of, in order
        shown: list[dict[str, Any]] = []  # what the network is shown, in order
        for picture in _given(ref_images).values():
            pixels = width * height if ref_image_size == "match" else None
            for found, item in zip((told, shown), _picture(vae, picture, pixels)):
                found.append(item)
        sounds = _given(ref_video_audios)
        for name, video in _given(ref_videos).items():
            sound = sounds.get(f"ref_video_audio_{name.rpartition('_')[2]}")
            for found, items in zip((told, shown), _video(vae, audio_vae, video[:frames], sound)):
                found.extend(items)
        for audio in _given(ref_audios).values():
            encoded = encoded_sound(audio_vae, audio)
            told.append({"type": "audio"})
            shown.append({"kind": "audio", "ref_audio_t": encoded.shape[-1], "audio_latent": encoded})
        conditioning = clip.encode_from_tokens_scheduled(clip.tokenize(prompt, minimax_ref_items=told))
        if shown:
            conditioning = node_helpers.conditioning_set_values(conditioning, {"minimax_refs": shown})
        return io.NodeOutput(conditioning, latent)


def _given(values: Mapping[str, Any] | None) -> dict[str, Any]:
    return {name: value for name, value in (values or {}).items() if value is not None}


def _picture(vae: VAE, image: Tensor, pixels: int | None) -> Iterator[dict[str, Any]]:
    """What the text encoder and the network see of the first picture of *image*: of at most *pixels*, None: of the short side's length."""
    height, width = image.shape[1:3]
    scale = SHOWN_SHORT_SIDE / min(width, height) if pixels is None else math.sqrt(pixels / (width * height))
    wide, high = on_grid(width * min(1.0, scale), height * min(1.0, scale))
    picture = in_size(image[:1], wide, high, "disabled")
    yield {"type": "image", "data": picture}
    yield {"kind": "image", "latent_h": high // SIDE, "latent_w": wide // SIDE, "latent": vae.encode(picture)}


def _video(vae: VAE, audio_vae: VAE, video: Tensor, sound: Audio | None) -> Shown:
    """What the text encoder and the network are shown of a video and its sound. Raises ``ValueError`` for a video that is too short."""
    if len(video) < SHORTEST:
        raise ValueError(f"a reference video of {len(video)} frames is too short for MiniMax H3; it needs at least {SHORTEST}")
    width, height = canvas(video.shape[2], video.shape[1])
    frames = in_size(video[: usable_length(len(video))], width, height, "disabled")
    latent = vae.encode(frames)
    block = {"kind": "video", "latent_t": latent.shape[2], "latent_h": height // SIDE, "latent_w": width // SIDE, "latent": latent}
    encoded = None if sound is None else encoded_sound(audio_vae, sound)
    looked_at = frames[:: FPS // TURNS_PER_S]
    told: list[dict[str, Any]] = [] if encoded is None else [{"type": "audio"}]
    told.append({"type": "video", "data": looked_at, "timestamps": [turn / TURNS_PER_S for turn in range(len(looked_at))]})
    heard = 0 if encoded is None else encoded.shape[-1]
    return told, [{**block, "kind": "video_audio" if heard else "video", "ref_audio_t": heard, "audio_latent": encoded}]


class MiniMaxH3SigmaShift(io.ComfyNode):
    """Shifts the schedules of the video and of its sound."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        shifts = (("shift_video", 12.0), ("shift_audio", 3.0))
        return io.Schema(
            node_id="MiniMaxH3SigmaShift",
            display_name="ModelSamplingMiniMaxH3",
            category="model/patch/minimax",
            description="Shifts the noise of the video and of its sound.",
            search_aliases=["sigma shift", "minimax shift"],
            inputs=[
                io.Model.Input("model"),
                *(io.Float.Input(name, default=shift, min=0.01, max=MOST_SHIFT, step=0.01) for name, shift in shifts),
            ],
            outputs=[io.Model.Output()],
        )

    @classmethod
    def execute(cls, model: ModelPatcher, shift_video: float, shift_audio: float) -> io.NodeOutput:
        """A clone of *model* that samples so, and tells the network."""

        def build(clone: ModelPatcher) -> None:
            sampling = type("ModelSamplingAdvanced", (kinds.ModelSamplingAV, kinds.CONST), {})(clone.model.model_config)
            sampling.set_parameters(shift=shift_video, audio_shift=shift_audio)
            sampling.set_noise_scale(getattr(model.get_model_object("model_sampling"), "noise_scale", 1.0))
            clone.add_object_patch("model_sampling", sampling)
            options = dict(clone.model_options.get("transformer_options", {}))
            options |= {"minimax_h3_sigma_shift_video": shift_video, "minimax_h3_sigma_shift_audio": shift_audio}
            clone.model_options["transformer_options"] = options

        return io.NodeOutput(patching.patched_models().patched(model, (), build))


comfy_entrypoint = extension_of(
    EmptyMiniMaxH3LatentAV, MiniMaxH3ImageToVideo, MiniMaxH3AddGuide, MiniMaxH3ReferenceToVideo, MiniMaxH3SigmaShift
)
