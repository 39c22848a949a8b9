"""Nodes for sampling LTX's models: schedules, guidance of video and sound apart, and guidance away from weaker predictions."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import comfy.samplers
import node_helpers
from comfy.audio.resampling import resampled
from comfy.lazy_import import lazy_module
from comfy_api.latest import io
from comfy_extras.audio_values import Audio, required
from comfy_extras.ltx_guides import CATEGORY
from comfy_extras.model_patch_schema import model_patch_schema, share_input
from comfy_extras.nodes_slg import SkippedLayers

if TYPE_CHECKING:
    from torch import Tensor

    from comfy.images.vae import VAE
    from comfy.model_patcher import ModelPatcher
    from comfy_extras.node_values import Conditioning, Latent

torch = lazy_module("torch")
kinds = lazy_module("comfy.model_sampling")

FEW_TOKENS, MANY_TOKENS = 1024, 4096  # at which the two shifts hold
GUIDANCE = "advanced/guidance"
Other = Callable[[dict[str, Any], dict[str, Any]], tuple[Any, dict[str, Any]]]


def shift_for(latent: Latent | None, max_shift: float, base_shift: float) -> float:
    """The shift for as many tokens as *latent* has (4096 without one), on the line through both shifts."""
    tokens = MANY_TOKENS if latent is None else math.prod(latent["samples"].shape[2:])
    slope = (max_shift - base_shift) / (MANY_TOKENS - FEW_TOKENS)
    return base_shift + (tokens - FEW_TOKENS) * slope


def _shifts() -> list[io.Input]:
    numbers = (("max_shift", 2.05), ("base_shift", 0.95))
    return [io.Float.Input(name, default=default, min=0.0, max=100.0, step=0.01) for name, default in numbers]


class ModelSamplingLTXV(io.ComfyNode):
    """Shifts a model's schedule by the size of the video."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return model_patch_schema("ModelSamplingLTXV", "model/patch/ltxv", *_shifts(), io.Latent.Input("latent", optional=True))

    @classmethod
    def execute(cls, model: ModelPatcher, max_shift: float, base_shift: float, latent: Latent | None = None) -> io.NodeOutput:
        """A clone with that schedule."""
        sampling = type("ModelSampling", (kinds.ModelSamplingFlux, kinds.CONST), {})(model.model.model_config)
        sampling.set_parameters(shift=shift_for(latent, max_shift, base_shift))
        clone = model.clone()
        clone.add_object_patch("model_sampling", sampling)
        return io.NodeOutput(clone)


class LTXVScheduler(io.ComfyNode):
    """Computes LTX's sigmas for the size of a video."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LTXVScheduler",
            category="model/sampling/schedulers",
            inputs=[
                io.Int.Input("steps", default=20, min=1, max=10000),
                *_shifts(),
                io.Boolean.Input("stretch", default=True, tooltip="Let the last sigma before 0 be terminal.", advanced=True),
                io.Float.Input(
                    "terminal", default=0.1, min=0.0, max=0.99, step=0.01, tooltip="The last sigma before 0, if stretched.", advanced=True
                ),
                io.Latent.Input("latent", optional=True),
            ],
            outputs=[io.Sigmas.Output()],
        )

    @classmethod
    def execute(
        cls, steps: int, max_shift: float, base_shift: float, stretch: bool, terminal: float, latent: Latent | None = None
    ) -> io.NodeOutput:
        """*steps* + 1 sigmas from 1 to 0."""
        times, grown = torch.linspace(1.0, 0.0, steps + 1), math.exp(shift_for(latent, max_shift, base_shift))
        sigmas = torch.where(times == 0, 0.0, grown / (grown + (1 / times - 1)))
        if stretch:
            done = 1.0 - sigmas[sigmas != 0]
            sigmas[sigmas != 0] = 1.0 - done / (done[-1] / (1.0 - terminal))
        return io.NodeOutput(sigmas)


class Guider_LTXAVDualCFG(comfy.samplers.CFGGuider):  # noqa: N801 - the name packs import
    """A guider with a scale for the video and another one for the sound."""

    video_cfg = audio_cfg = 1.0
    _video_numbers: int | None = None

    def set_cfg(self, video_cfg: float, audio_cfg: float) -> None:  # type: ignore[override]  # ComfyUI's signature
        """Set both scales."""
        self.video_cfg, self.audio_cfg, self.cfg = video_cfg, audio_cfg, max(video_cfg, audio_cfg)

    def sample(self, noise: Any, latent_image: Any, *args: Any, **kwargs: Any) -> Any:
        """Sample; where the latent has sound, both parts at their own scale."""
        parts = latent_image.unbind() if latent_image.is_nested else []
        self._video_numbers = math.prod(parts[0].shape[1:]) if len(parts) > 1 else None
        return super().sample(noise, latent_image, *args, **kwargs)

    def predict_noise(self, x: Any, timestep: Any, model_options: dict[str, Any] | None = None, seed: int | None = None) -> Any:
        """The guided denoised latent; both sides of guidance are always computed where the scales differ."""
        options, video = {} if model_options is None else model_options, self._video_numbers
        if video is None or math.isclose(self.video_cfg, self.audio_cfg):
            self.cfg = self.video_cfg
            return super().predict_noise(x, timestep, options, seed)

        def apart(args: dict[str, Any]) -> Any:
            cond, uncond = args["cond"], args["uncond"]
            scales = torch.full_like(cond, self.video_cfg)
            scales[..., video:] = self.audio_cfg
            return uncond + (cond - uncond) * scales

        options = {**options, "sampler_cfg_function": apart, "disable_cfg1_optimization": True}
        return super().predict_noise(x, timestep, options, seed)


class LTXVDualCFGGuider(io.ComfyNode):
    """Guides video and sound by scales of their own."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        scales = (("video_cfg", 3.0), ("audio_cfg", 7.0))
        return io.Schema(
            node_id="LTXVDualCFGGuider",
            display_name="LTXV Dual CFG Guider",
            category="model/sampling/guiders",
            description="Guidance with one scale for the video and another one for the sound.",
            inputs=[
                *(io.Model.Input("model"), io.Conditioning.Input("positive"), io.Conditioning.Input("negative")),
                *(io.Float.Input(name, default=scale, min=0.0, max=100.0, step=0.1, round=0.01) for name, scale in scales),
            ],
            outputs=[io.Guider.Output()],
        )

    @classmethod
    def execute(
        cls, model: ModelPatcher, positive: Conditioning, negative: Conditioning, video_cfg: float, audio_cfg: float
    ) -> io.NodeOutput:
        """The guider."""
        guider = Guider_LTXAVDualCFG(model)
        guider.set_conds(positive, negative)
        guider.set_cfg(video_cfg, audio_cfg)
        return io.NodeOutput(guider)


def guided_away(model: ModelPatcher, scale: float, start_percent: float, end_percent: float, other: Other) -> ModelPatcher:
    """A clone of *model* guided by *scale* away from a further prediction, in a range of the sampling.

    *other* gives the conditioning and the model options of that prediction; at a scale of 0 it is not made.
    """
    acting = SkippedLayers(model, "", "", start_percent, end_percent)

    def guided(args: dict[str, Any]) -> Tensor:
        if scale == 0 or not acting.act_at(args["sigma"]):
            return args["denoised"]
        cond, options = other(args, args["model_options"].copy())
        (weaker,) = comfy.samplers.calc_cond_batch(args["model"], [cond], args["input"], args["sigma"], options)
        return args["denoised"] + (args["cond_denoised"] - weaker) * scale

    clone = model.clone()
    clone.set_model_sampler_post_cfg_function(guided)
    return clone


def _with_transformer(options: dict[str, Any], **values: Any) -> dict[str, Any]:
    return {**options, "transformer_options": {**options.get("transformer_options", {}), **values}}


class LTXVSpatioTemporalGuidance(io.ComfyNode):
    """Guides away from what is made where tokens of some blocks look only at themselves."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return model_patch_schema(
            "LTXVSpatioTemporalGuidance",
            GUIDANCE,
            io.Float.Input("scale", default=1.0, min=0.0, max=100.0, step=0.01, round=0.01),
            io.String.Input("blocks", default="29", tooltip="The numbers of these blocks."),
            share_input("start_percent", 0.0),
            share_input("end_percent", 1.0),
            display_name="LTXV Spatio-Temporal Guidance (STG)",
            description="Guides towards detail and steady motion: away from a further prediction in which the tokens of some blocks look "
            "only at themselves.",
        )

    @classmethod
    def execute(cls, model: ModelPatcher, scale: float, blocks: str, start_percent: float, end_percent: float) -> io.NodeOutput:
        """A clone; steps in the range call it once more, unless no block is named."""
        numbers = tuple(sorted({int(number) for number in re.findall(r"\d+", blocks)}))

        def passing(args: dict[str, Any], options: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
            return args["cond"], _with_transformer(options, stg_self_attn_blocks=numbers)

        return io.NodeOutput(guided_away(model, scale if numbers else 0.0, start_percent, end_percent, passing))


class LTXVModalityGuidance(io.ComfyNode):
    """Guides away from what is made where video and sound do not look at each other."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return model_patch_schema(
            "LTXVModalityGuidance",
            GUIDANCE,
            io.Float.Input("modality_scale", default=3.0, min=1.0, max=100.0, step=0.1, round=0.01),
            share_input("start_percent", 0.0),
            share_input("end_percent", 1.0),
            display_name="LTXV Modality Guidance (A/V coupling)",
            description="Lets video and sound fit each other better (lips, for example): guides away from a further prediction in which "
            "they do not look at each other. At 1.0 it is not made.",
        )

    @classmethod
    def execute(cls, model: ModelPatcher, modality_scale: float, start_percent: float, end_percent: float) -> io.NodeOutput:
        """A clone; steps in the range call it once more."""

        def apart(args: dict[str, Any], options: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
            return args["cond"], _with_transformer(options, a2v_cross_attn=False, v2a_cross_attn=False)

        scale = 0.0 if math.isclose(modality_scale, 1.0) else modality_scale - 1.0
        return io.NodeOutput(guided_away(model, scale, start_percent, end_percent, apart))


def _unheard(args: dict[str, Any], options: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """The conditioning without sound that was heard before."""
    entries = args["cond"]
    kept = [{name: value for name, value in entry.get("model_conds", {}).items() if name != "ref_audio"} for entry in entries]
    return [{**entry, "model_conds": conds} for entry, conds in zip(entries, kept)], options


class LTXVReferenceAudio(io.ComfyNode):
    """Lets LTX 2 speak with a voice that it hears."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        sides = [io.Conditioning.Output(display_name=name) for name in ("positive", "negative")]
        return io.Schema(
            node_id="LTXVReferenceAudio",
            display_name="LTXV Reference Audio (ID-LoRA)",
            category=CATEGORY,
            description="Gives LTX 2 with an ID-LoRA a voice to speak with, and guides towards it.",
            inputs=[
                *(io.Model.Input("model"), io.Conditioning.Input("positive"), io.Conditioning.Input("negative")),
                io.Audio.Input("reference_audio", tooltip="Somebody speaking; about five seconds, as in training."),
                io.Vae.Input("audio_vae", display_name="Audio VAE", tooltip="LTX's audio autoencoder."),
                io.Float.Input(
                    "identity_guidance_scale",
                    default=3.0,
                    min=0.0,
                    max=100.0,
                    step=0.01,
                    round=0.01,
                    tooltip="How strongly it guides towards the voice; each step then calls the model once more. 0: not.",
                ),
                share_input("start_percent", 0.0, tooltip="Where in the sampling it begins to guide."),
                share_input("end_percent", 1.0, tooltip="Where it ends."),
            ],
            outputs=[io.Model.Output(), *sides],
        )

    @classmethod
    def execute(
        cls,
        model: ModelPatcher,
        positive: Conditioning,
        negative: Conditioning,
        reference_audio: Audio | None,
        audio_vae: VAE,
        identity_guidance_scale: float,
        start_percent: float,
        end_percent: float,
    ) -> io.NodeOutput:
        """A clone that is guided, and both conditionings with the voice. Raises ``ValueError`` without a sound."""
        sound = required(reference_audio, "LTXVReferenceAudio")
        waveform = resampled(sound["waveform"], sound["sample_rate"], audio_vae.audio_sample_rate)
        tokens = audio_vae.encode(waveform.movedim(1, -1)).transpose(1, 2).flatten(2)
        sides = (node_helpers.conditioning_set_values(side, {"ref_audio": {"tokens": tokens}}) for side in (positive, negative))
        return io.NodeOutput(guided_away(model, identity_guidance_scale, start_percent, end_percent, _unheard), *sides)


class LTXVConditioning(io.ComfyNode):
    """Tells LTX how many frames a second has."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LTXVConditioning",
            category=CATEGORY,
            inputs=[
                *(io.Conditioning.Input("positive"), io.Conditioning.Input("negative")),
                io.Float.Input("frame_rate", default=25.0, min=0.0, max=1000.0, step=0.01),
            ],
            outputs=[io.Conditioning.Output(display_name="positive"), io.Conditioning.Output(display_name="negative")],
        )

    @classmethod
    def execute(cls, positive: Conditioning, negative: Conditioning, frame_rate: float) -> io.NodeOutput:
        """Both conditionings with it."""
        sides = (node_helpers.conditioning_set_values(side, {"frame_rate": frame_rate}) for side in (positive, negative))
        return io.NodeOutput(*sides)
