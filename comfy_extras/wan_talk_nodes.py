"""The node that makes people in Wan's videos talk, by InfiniteTalk's model patch (part of ``nodes_wan``)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from comfy.lazy_import import lazy_module
from comfy.patcher_extension import WrappersMP
from comfy_api.latest import io
from comfy_extras.empty_latents import size_inputs
from comfy_extras.wan_conditioning import (
    FRAMES_PER_CELL,
    cells,
    empty_video,
    fitted,
    grey_video,
    image_inputs,
    seen_input,
    with_sight,
    with_values,
)
from comfy_extras.wan_sound_nodes import at_rate

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

    from comfy.images.vae import VAE
    from comfy.model_patcher import ModelPatcher
    from comfy_extras.node_values import Conditioning
    from comfy_extras.wan_sound_nodes import Heard

torch = lazy_module("torch")
model_base = lazy_module("comfy.model_base")
checks = lazy_module("comfy.control.model_patches")
talk = lazy_module("comfy.control.infinite_talk")
networks = lazy_module("comfy.ldm.wan.model_multitalk")

FRAMES_PER_SECOND = 25
TWO = "two_speakers"
PATCH = 2  # cells on a side of a token


def said(heard: Sequence[Heard]) -> list[Tensor]:
    """What each person says, one after the other, each silent meanwhile: times x layers x channels, 25 per second."""
    states = [at_rate(torch.stack(list(one["encoded_audio_all_layers"])).squeeze(1)[1:], FRAMES_PER_SECOND).movedim(0, 1) for one in heard]
    whole = sum(map(len, states))
    spoken, start = [], 0
    for one in states:
        spoken.append(torch.nn.functional.pad(one, (0, 0, 0, 0, start, whole - start - len(one))))
        start += len(one)
    return spoken


def people(mode: Mapping[str, Any], first: Heard) -> tuple[list[Heard], Tensor | None]:
    """What is heard from each person, and masks (people x height x width) of where they are, with two of them.

    Raises ``ValueError`` if there is a second person without masks, or masks without.
    """
    given = mode if mode["mode"] == TWO else {}
    second = given.get("audio_encoder_output_2")
    masks = [given[name] for name in ("mask_1", "mask_2") if given.get(name) is not None]
    if second is not None and len(masks) < 2:
        raise ValueError("two people who talk need a mask each: connect mask_1 and mask_2")
    if second is None and len(masks) == 2:
        raise ValueError("two masks need what two people say: connect audio_encoder_output_2")
    return ([first], None) if second is None else ([first, second], torch.cat(masks))


class WanInfiniteTalkToVideo(io.ComfyNode):
    """Makes one or two people in a video talk."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        second: list[io.Input] = [
            io.AudioEncoderOutput.Input("audio_encoder_output_2", optional=True),
            io.Mask.Input("mask_1", optional=True, tooltip="Where the first person is; needed when two talk."),
            io.Mask.Input("mask_2", optional=True, tooltip="Where the second person is; needed when two talk."),
        ]
        modes = [io.DynamicCombo.Option("single_speaker", []), io.DynamicCombo.Option(TWO, second)]
        sizes = [one for one in size_inputs(832, 480, 16, length=(81, 1, FRAMES_PER_CELL)) if one.id != "batch_size"]
        given = [io.Conditioning.Output(display_name=name) for name in ("positive", "negative")]
        return io.Schema(
            node_id="WanInfiniteTalkToVideo",
            category="model/conditioning/wan/infinite talk",
            inputs=[
                io.DynamicCombo.Input("mode", options=modes),
                io.Model.Input("model"),
                io.ModelPatch.Input("model_patch"),
                io.Conditioning.Input("positive"),
                io.Conditioning.Input("negative"),
                io.Vae.Input("vae"),
                *sizes,
                seen_input(),
                *image_inputs("start_image"),
                io.AudioEncoderOutput.Input("audio_encoder_output_1"),
                io.Int.Input(
                    "motion_frame_count", default=9, min=1, max=33, step=1, tooltip="How many of the frames before are seen.", advanced=True
                ),
                io.Float.Input("audio_scale", default=1.0, min=-10.0, max=10.0, step=0.01),
                *image_inputs("previous_frames"),
            ],
            outputs=[
                io.Model.Output(display_name="model"),
                *given,
                io.Latent.Output(display_name="latent"),
                io.Int.Output(display_name="trim_image"),
            ],
        )

    @classmethod
    def execute(
        cls,
        mode: Mapping[str, Any],
        model: ModelPatcher,
        model_patch: ModelPatcher,
        positive: Conditioning,
        negative: Conditioning,
        vae: VAE,
        width: int,
        height: int,
        length: int,
        audio_encoder_output_1: Heard,
        motion_frame_count: int,
        start_image: Tensor | None = None,
        previous_frames: Tensor | None = None,
        audio_scale: float = 1.0,
        clip_vision_output: Any = None,
    ) -> io.NodeOutput:
        """A clone of *model* that hears, the conditionings, an empty latent, and how many frames of the video are those before it.

        Raises ``ValueError`` for files of other kinds or sizes, and inputs that do not go together.
        """
        network: Any = model_patch.model
        base: Any = model.model
        if not isinstance(network, networks.MultiTalkModelPatch):
            raise ValueError(f"{network.source_name} is no model patch of InfiniteTalk, but a {type(network).__name__}")
        checks.check_model(model_patch, model, model_base.WAN21, {"dim": network.in_dim})
        if len(base.diffusion_model.blocks) > len(network.blocks):
            raise ValueError(f"{network.source_name} is for {len(network.blocks)} blocks; the model has more")
        heard, masks = people(mode, audio_encoder_output_1)
        before = previous_frames
        if before is None and start_image is None:
            raise ValueError("connect start_image, or previous_frames to go on from")
        if before is not None and len(before) < motion_frame_count:
            raise ValueError(f"{len(before)} previous frames are fewer than motion_frame_count, {motion_frame_count}")
        sides, latent = (positive, negative), empty_video(1, length, width, height)
        shown: Any = None
        if start_image is not None:
            begin = fitted(start_image[:length], width, height)
            shown = vae.encode(torch.cat((begin, grey_video(length - len(begin), width, height, begin))))
            free = torch.ones((1, 1, *latent["samples"].shape[2:3], *shown.shape[-2:]), device=begin.device, dtype=begin.dtype)
            free[:, :, : cells(len(begin))] = 0.0
            sides = with_values(sides, {"concat_latent_image": shown, "concat_mask": free})
        sides = with_sight(sides, clip_vision_output)
        start = 0 if before is None else len(before) - motion_frame_count
        first = shown[:, :, :1] if before is None else vae.encode(fitted(before[-motion_frame_count:], width, height))
        patched = model.clone()
        sound = networks.project_audio_features(network.audio_proj, _states(network, heard), start, start + length)
        patched.model_options["transformer_options"]["audio_embeds"] = sound.to(patched.model_dtype())
        seen = talk.FirstFramesSeen(base.process_latent_in(first))
        patched.add_wrapper_with_key(WrappersMP.APPLY_MODEL, "MultiTalk_apply_model", seen)
        if before is not None:
            patched.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, "infinite_talk_outer_sample", talk.FirstFramesKept(first))
        patched.set_model_patch(talk.MultiTalkCrossAttnPatch(model_patch, audio_scale), "attn2_patch")
        if masks is not None:
            grid = torch.nn.functional.interpolate(masks[None], size=(height // 8 // PATCH, width // 8 // PATCH), mode="nearest")[0]
            patched.set_model_patch(talk.MultiTalkGetAttnMapPatch((grid > 0).flatten(1)), "attn1_patch")
        return io.NodeOutput(patched, *sides, latent, 0 if before is None else motion_frame_count)


def _states(network: Any, heard: Sequence[Heard]) -> list[Tensor]:
    """What each person says. Raises ``ValueError`` for the states of another audio encoder than *network* was made for."""
    spoken = said(heard)
    if spoken[0][0].numel() != network.heard:
        layers, channels = spoken[0].shape[1:]
        raise ValueError(
            f"{network.source_name} hears {network.heard} values at a time; the audio encoder gives {layers} layers of {channels}: "
            "InfiniteTalk's is the base wav2vec 2.0"
        )
    return spoken
