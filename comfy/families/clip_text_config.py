"""The sizes of a CLIP text model, read from tensor shapes."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from comfy.families.sd_unet_config import count_blocks

Shape = tuple[int, ...]
HEAD_WIDTH = 64
END_OF_TEXT = 49407
OPENAI_LAYERS = 12
SAM3_POSITIONS = 32


@dataclass(frozen=True, slots=True)
class ClipTextConfig:
    """Sizes of one text model. ``projection`` is the width of the projected pooled output, or 0 if the model has none."""

    vocabulary: int
    positions: int
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    hidden_act: str
    projection: int

    def __post_init__(self) -> None:
        if self.hidden_size % self.num_heads:
            raise ValueError(f"a text model of width {self.hidden_size} cannot have {self.num_heads} heads")

    def transformers_arguments(self) -> dict[str, Any]:
        """Constructor arguments of transformers' ``CLIPTextConfig``."""
        return {
            "vocab_size": self.vocabulary,
            "max_position_embeddings": self.positions,
            "hidden_size": self.hidden_size,
            "intermediate_size": self.intermediate_size,
            "num_hidden_layers": self.num_layers,
            "num_attention_heads": self.num_heads,
            "hidden_act": self.hidden_act,
            "projection_dim": self.projection or self.hidden_size,
            "eos_token_id": END_OF_TEXT,
        }


def read_clip_config(shapes: Mapping[str, Shape], settings: Mapping[str, Any] | None = None) -> ClipTextConfig | None:
    """The text model that *shapes* describe in transformers' or open_clip's names (no prefix), or None if they describe none.

    *settings* may give ``num_attention_heads`` and ``hidden_act``. By default heads have 64 channels, and the activation is ``quick_gelu``
    up to CLIP-L's width and depth and ``gelu`` (open_clip) above.
    """
    names = (
        "text_model.embeddings.token_embedding.weight",
        "text_model.embeddings.position_embedding.weight",
        "text_model.encoder.layers.{}.",
        "text_model.encoder.layers.0.mlp.fc1.weight",
    )
    if "transformer.resblocks.0.ln_1.weight" in shapes:
        names = ("token_embedding.weight", "positional_embedding", "transformer.resblocks.{}.", "transformer.resblocks.0.mlp.c_fc.weight")
    tokens, positions, wide = shapes.get(names[0]), shapes.get(names[1]), shapes.get(names[3])
    if tokens is None or positions is None or wide is None:
        return None
    chosen = settings or {}
    projection = shapes.get("text_projection.weight", shapes.get("text_projection", (0, 0))[::-1])
    layers = count_blocks(shapes, names[2])
    is_open_clip = names[1] == "positional_embedding" or tokens[1] > 768 or layers > OPENAI_LAYERS
    return ClipTextConfig(
        vocabulary=tokens[0],
        positions=positions[0],
        hidden_size=tokens[1],
        intermediate_size=wide[0],
        num_layers=layers,
        num_heads=chosen.get("num_attention_heads", max(1, tokens[1] // HEAD_WIDTH)),
        hidden_act=chosen.get("hidden_act", "gelu" if is_open_clip else "quick_gelu"),
        projection=projection[0],
    )


def read_sam3_clip_config(shapes: Mapping[str, Shape], settings: Mapping[str, Any] | None = None) -> ClipTextConfig | None:
    """As :func:`read_clip_config`, for SAM 3's text model: open_clip's with ``quick_gelu``, as ComfyUI runs it. None for one with more
    positions than it has."""
    found = read_clip_config(shapes, settings)
    if found is None or found.positions > SAM3_POSITIONS:
        return None
    return replace(found, hidden_act=(settings or {}).get("hidden_act", "quick_gelu"))
