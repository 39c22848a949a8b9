"""The node that tells how long the shot of a prompt would be (part of ``nodes_lt``)."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from comfy.lazy_import import lazy_module
from comfy_api.latest import io

if TYPE_CHECKING:
    from comfy.model_patcher import ModelPatcher
    from comfy_extras.node_values import Conditioning

torch = lazy_module("torch")
management = lazy_module("comfy.model_management")
duration = lazy_module("comfy.ldm.lightricks.duration_head")

log = logging.getLogger(__name__)


def _seconds_input(name: str, default: float, tooltip: str) -> io.Input:
    return io.Float.Input(name, default=default, min=0.5, max=120.0, step=0.1, tooltip=tooltip)


class LTXVDurationPredictor(io.ComfyNode):
    """Tells how long the shot of a prompt would be, by LTX 2.4's duration head."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        patch = io.Custom("MODEL_PATCH")
        return io.Schema(
            node_id="LTXVDurationPredictor",
            display_name="LTXV Duration Predictor",
            category="conditioning/video_models",
            description="Tells how long the shot of a prompt would be, as a number of frames that latents have.",
            search_aliases=["auto duration", "duration head", "num_frames"],
            inputs=[
                *(io.Model.Input("model"), io.Conditioning.Input("positive")),
                patch.Input("duration_head", tooltip="LTX 2.4's duration head, a model patch."),
                io.Float.Input("frame_rate", default=24.0, min=1.0, max=120.0, step=0.01),
                _seconds_input("min_seconds", 1.0, "The shortest video."),
                _seconds_input("max_seconds", 20.0, "The longest video."),
            ],
            outputs=[
                io.Int.Output(display_name="num_frames", tooltip="8 n + 1 frames."),
                io.Float.Output(display_name="seconds", tooltip="What was told, whatever the shortest and the longest are."),
            ],
        )

    @classmethod
    def execute(
        cls,
        model: ModelPatcher,
        positive: Conditioning,
        duration_head: ModelPatcher,
        frame_rate: float,
        min_seconds: float,
        max_seconds: float,
    ) -> io.NodeOutput:
        """(frames, seconds) for the first text of *positive*. Raises ``ValueError``, naming the files, for another model patch, and for a
        model that has no connectors for videos and sound.
        """
        base: Any = model.model
        network, head = base.diffusion_model, duration_head.model
        if not isinstance(head, duration.DurationHead):
            raise ValueError(f"{head.source_name} is no duration head of LTX, but a {type(head).__name__}")
        if not hasattr(network, "preprocess_text_embeds"):
            file = getattr(base, "source_name", "") or "the model"
            raise ValueError(f"{file} holds a {type(base).__name__}, which has no connectors for videos and sound; LTX 2 and later have")
        management.load_models_gpu([model, duration_head])
        said, notes = positive[0]
        with torch.no_grad():
            said = said[:1].to(device=model.load_device, dtype=base.get_dtype_inference())
            tokens = network.preprocess_text_embeds(said, unprocessed=notes.get("unprocessed_ltxav_embeds", False)).float()
            width = network.cross_attention_dim
            seconds = float(head(tokens[..., :width], tokens[..., width:])[0])
        frames = duration.seconds_to_num_frames(seconds, frame_rate, min_seconds, max_seconds)
        log.info("the prompt's shot would last %.2f s: %d frames at %.2f per second", seconds, frames, frame_rate)
        return io.NodeOutput(frames, seconds)
