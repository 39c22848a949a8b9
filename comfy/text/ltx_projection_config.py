"""What a checkpoint of LTX 2 holds for the states of its text model: a projection and, of the first one, connectors. Needs no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from comfy.families.diffusers_unet import RenamedSource
from comfy.families.weight_source import WeightSource

Shape = tuple[int, ...]
Shapes = Mapping[str, Shape]

PROJECTION = "text_embedding_projection"
SINGLE = (f"{PROJECTION}.aggregate_embed.", f"{PROJECTION}.")
VIDEO, SOUND = (f"{PROJECTION}.{name}_aggregate_embed." for name in ("video", "audio"))
CONNECTORS = {f"{name}_embeddings_connector.": f"model.diffusion_model.{name}_embeddings_connector." for name in ("video", "audio")}
BIAS = "model.diffusion_model.audio_embeddings_connector.transformer_1d_blocks.{}.attn1.to_q.bias"
FIRST_WIDTH, FIRST_BLOCKS = 3840, 2  # of the connectors that the text encoder itself runs, as in ComfyUI


@dataclass(frozen=True, slots=True)
class ProjectionConfig:
    """Sizes of one. *sound_width*: of the part for sound, where there is one apart; *connected*: with connectors, whose text is ready."""

    inputs: int
    video_width: int
    sound_width: int | None
    video_bias: bool
    sound_bias: bool
    connected: bool


def read_projection_config(shapes: Shapes, settings: Mapping[str, Any] | None = None) -> ProjectionConfig | None:
    """The sizes of the one that *shapes* describe in published names, or None if they describe none. *settings* are not asked."""
    if f"{VIDEO}weight" in shapes and f"{SOUND}weight" in shapes:
        width, inputs = shapes[f"{VIDEO}weight"]
        biases = (f"{VIDEO}bias" in shapes, f"{SOUND}bias" in shapes)
        return ProjectionConfig(inputs, width, shapes[f"{SOUND}weight"][0], *biases, connected=False)
    prefix = next((prefix for prefix in SINGLE if f"{prefix}weight" in shapes), None)
    if prefix is None:
        return None
    width, inputs = shapes[f"{prefix}weight"]
    first = shapes.get(BIAS.format(0))
    connected = first == (FIRST_WIDTH,) and BIAS.format(FIRST_BLOCKS) not in shapes
    return ProjectionConfig(inputs, width, None, f"{prefix}bias" in shapes, False, connected)


def is_projection(config: ProjectionConfig) -> bool:
    """Whether *config* is one, as every one that is read."""
    return config.video_width > 0


def projection_source(source: WeightSource) -> WeightSource:
    """The tensors of *source* that it is made of, under the names of the text encoder's parameters."""
    shapes = source.shapes()
    config = read_projection_config(shapes)
    names = {}
    for key in shapes:
        if key.startswith(SINGLE[0]):
            names[f"{PROJECTION}.{key.removeprefix(SINGLE[0])}"] = key
        elif key.startswith(SINGLE[1]):
            names[key] = key
        for own, theirs in CONNECTORS.items():
            if config is not None and config.connected and key.startswith(theirs):
                names[own + key.removeprefix(theirs)] = key
    return RenamedSource(source, names, {name: shapes[key] for name, key in names.items()})
