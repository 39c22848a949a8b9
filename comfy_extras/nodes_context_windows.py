"""Nodes that let long videos be sampled window by window."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from comfy.lazy_import import lazy_module
from comfy.windows.schedules import ContextFuseMethods, ContextSchedules, get_matching_context_schedule, get_matching_fuse_method
from comfy_api.latest import io
from comfy_extras.node_extension import extension_of
from comfy_extras.node_inputs import MAX_RESOLUTION

if TYPE_CHECKING:
    from comfy.patching.patcher import ModelPatcher

context_windows = lazy_module("comfy.context_windows")

SCHEDULES = [ContextSchedules.STATIC_STANDARD, ContextSchedules.UNIFORM_STANDARD, ContextSchedules.UNIFORM_LOOPED, ContextSchedules.BATCHED]
FRAMES = 2  # the dimension of videos' frames


def _inputs(*lengths: io.Input, schedule: str, advanced: bool | None, further: list[io.Input], freenoise: bool) -> list[io.Input]:
    """The model, *lengths*, how windows lie and are fused, and *further* inputs before and after the noise."""
    split = io.Boolean.Input(
        "split_conds_to_windows",
        default=False,
        tooltip="Of several conditionings that were combined, each window takes the one of its part of the video.",
        advanced=advanced,
    )
    before = [one for one in further if one.id == "dim"]
    return [
        io.Model.Input("model", tooltip="The model."),
        *lengths,
        io.Combo.Input("context_schedule", options=SCHEDULES, default=schedule, tooltip="Where the windows lie, step by step."),
        io.Int.Input(
            "context_stride", min=1, default=1, tooltip="How far apart frames of a window may be; of uniform schedules.", advanced=advanced
        ),
        io.Boolean.Input(
            "closed_loop", default=False, tooltip="Windows go on from the end to the beginning; of looped schedules.", advanced=advanced
        ),
        io.Combo.Input(
            "fuse_method", options=ContextFuseMethods.LIST_STATIC, default=ContextFuseMethods.PYRAMID, tooltip="How much each frame counts."
        ),
        *before,
        io.Boolean.Input(
            "freenoise",
            default=freenoise,
            tooltip="Later frames get the noise of earlier ones, shuffled, which blends windows.",
            advanced=advanced,
        ),
        *[one for one in further if one.id not in ("dim", "latent_retain_index_list", "causal_window_fix")],
        split,
        *[one for one in further if one.id in ("latent_retain_index_list", "causal_window_fix")],
    ]


def _in_windows(model: ModelPatcher, freenoise: bool, schedule: str, fuse_method: str, **settings: Any) -> ModelPatcher:
    """A clone of *model* that samples in windows."""
    clone = model.clone()
    clone.model_options["context_handler"] = context_windows.IndexListContextHandler(
        get_matching_context_schedule(schedule), get_matching_fuse_method(fuse_method), freenoise=freenoise, **settings
    )
    context_windows.create_prepare_sampling_wrapper(clone)
    if freenoise:
        context_windows.create_sampler_sample_wrapper(clone)
    return clone


class ContextWindowsManual(io.ComfyNode):
    """Samples in windows along any dimension."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        lengths = (
            io.Int.Input("context_length", min=1, default=16, tooltip="Latent frames of a window."),
            io.Int.Input("context_overlap", min=0, default=4, tooltip="Latent frames that neighbours share."),
        )
        further: list[io.Input] = [
            io.Int.Input("dim", min=0, max=5, default=0, tooltip="The dimension of the frames; 2 for videos."),
            io.String.Input(
                "cond_retain_index_list",
                default="",
                tooltip='Places of each window that keep the whole video\'s conditioning: "0" keeps the picture that a video begins with.',
            ),
            io.String.Input("latent_retain_index_list", default="", tooltip="Places of each window that keep the whole video's latent."),
            io.Boolean.Input("causal_window_fix", default=True, tooltip="The frame before a window is sampled with it."),
        ]
        return io.Schema(
            node_id="ContextWindowsManual",
            display_name="Context Windows (Manual)",
            category="model/patch",
            description="Samples a long video window by window.",
            inputs=_inputs(*lengths, schedule=ContextSchedules.STATIC_STANDARD, advanced=None, further=further, freenoise=False),
            outputs=[io.Model.Output(tooltip="The model, sampling in windows.")],
            is_experimental=True,
        )

    @classmethod
    def execute(
        cls,
        model: ModelPatcher,
        context_length: int,
        context_overlap: int,
        context_schedule: str,
        context_stride: int,
        closed_loop: bool,
        fuse_method: str,
        dim: int,
        freenoise: bool,
        cond_retain_index_list: str = "",
        split_conds_to_windows: bool = False,
        latent_retain_index_list: str = "",
        causal_window_fix: bool = True,
    ) -> io.NodeOutput:
        """A clone of *model*."""
        return io.NodeOutput(
            _in_windows(
                model,
                freenoise,
                context_schedule,
                fuse_method,
                context_length=context_length,
                context_overlap=context_overlap,
                context_stride=context_stride,
                closed_loop=closed_loop,
                dim=dim,
                cond_retain_index_list=cond_retain_index_list,
                split_conds_to_windows=split_conds_to_windows,
                latent_retain_index_list=latent_retain_index_list,
                causal_window_fix=causal_window_fix,
            )
        )


class WanContextWindowsManual(io.ComfyNode):
    """Samples Wan's videos in windows; lengths in frames. *KEEPS_LATENT*: a kept first frame is so in the latent too."""

    FRAMES_PER_CELL = 4
    KEEPS_LATENT = False

    @classmethod
    def define_schema(cls) -> io.Schema:
        lengths = (
            io.Int.Input("context_length", min=1, max=MAX_RESOLUTION, step=4, default=81, tooltip="Frames of a window: 4 n + 1."),
            io.Int.Input("context_overlap", min=0, default=30, tooltip="Frames that neighbours share."),
        )
        first = io.Boolean.Input(
            "retain_first_frame", default=False, tooltip="Every window keeps the conditioning of the video's first frame."
        )
        return io.Schema(
            node_id="WanContextWindowsManual",
            display_name="Wan Context Windows",
            category="model/patch/wan",
            description="Samples a long video of a model like Wan window by window.",
            inputs=_inputs(*lengths, schedule=ContextSchedules.UNIFORM_STANDARD, advanced=True, further=[first], freenoise=True),
            outputs=[io.Model.Output(tooltip="The model, sampling in windows.")],
            is_experimental=True,
        )

    @classmethod
    def execute(
        cls,
        model: ModelPatcher,
        context_length: int,
        context_overlap: int,
        context_schedule: str,
        context_stride: int,
        closed_loop: bool,
        fuse_method: str,
        freenoise: bool,
        retain_first_frame: bool = False,
        split_conds_to_windows: bool = False,
    ) -> io.NodeOutput:
        """A clone of *model*."""
        return io.NodeOutput(
            _in_windows(
                model,
                freenoise,
                context_schedule,
                fuse_method,
                context_length=max((context_length - 1) // cls.FRAMES_PER_CELL + 1, 1),
                context_overlap=max(context_overlap // cls.FRAMES_PER_CELL, 0),
                context_stride=context_stride,
                closed_loop=closed_loop,
                dim=FRAMES,
                cond_retain_index_list="0" if retain_first_frame else "",
                latent_retain_index_list="0" if retain_first_frame and cls.KEEPS_LATENT else "",
                split_conds_to_windows=split_conds_to_windows,
            )
        )


class LTXVContextWindows(WanContextWindowsManual):
    """Samples LTX's videos in windows; lengths in frames."""

    FRAMES_PER_CELL = 8
    KEEPS_LATENT = True

    @classmethod
    def define_schema(cls) -> io.Schema:
        lengths = (
            io.Int.Input("context_length", min=1, max=MAX_RESOLUTION, step=8, default=145, tooltip="Frames of a window: 8 n + 1."),
            io.Int.Input("context_overlap", min=0, step=8, default=40, tooltip="Frames that neighbours share."),
        )
        first = io.Boolean.Input("retain_first_frame", default=False, tooltip="Every window keeps the video's first latent frame.")
        return io.Schema(
            node_id="LTXVContextWindows",
            display_name="LTXV Context Windows",
            category="model/patch",
            description="Samples a long video of a model like LTX window by window.",
            inputs=_inputs(*lengths, schedule=ContextSchedules.UNIFORM_STANDARD, advanced=True, further=[first], freenoise=True),
            outputs=[io.Model.Output(tooltip="The model, sampling in windows.")],
            is_experimental=True,
        )


comfy_entrypoint = extension_of(ContextWindowsManual, WanContextWindowsManual, LTXVContextWindows)
