"""The sizes of Gemma 4 in its published files, told by names and shapes. Needs no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from comfy.families.diffusers_unet import RenamedSource
from comfy.families.sd_unet_config import count_blocks
from comfy.families.weight_source import WeightSource
from comfy.text.ltx_projection_config import PROJECTION

Shape = tuple[int, ...]
Shapes = Mapping[str, Shape]

SMALL, MEDIUM, LARGE, UNIFIED = "e2b", "e4b", "31b", "12b"
LAYERS = {35: SMALL, 42: MEDIUM, 48: UNIFIED, 60: LARGE}  # which one is told by its depth
GLOBAL_EVERY = {SMALL: 5, MEDIUM: 6, UNIFIED: 6, LARGE: 6}  # of so many layers, the last attends to everything
SHARED = {SMALL: 20, MEDIUM: 18, UNIFIED: 0, LARGE: 0}  # how many last layers attend to what an earlier one made
WINDOWS = {SMALL: 512, MEDIUM: 512, UNIFIED: 1024, LARGE: 1024}
NEAR, FAR = "sliding_attention", "full_attention"
THETA = {NEAR: 1e4, FAR: 1e6}
TURNED_PART = 0.25  # of a head that attends to everything
SCORE_LIMIT = 30.0
UNSAID = (258883, 258882)  # <audio|>, <image|>, which the one without towers never says
_LAYER = "model.layers.{}."
_EYE, _EAR = "vision_model.encoder.layers.{}.", "audio_model.layers.{}."


@dataclass(frozen=True, slots=True)
class Gemma4Eyes:
    """Sizes of what looks at pictures. *clipped*: whether its layers keep numbers within bounds of the file."""

    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    head_width: int
    patch_size: int
    positions: int
    clipped: bool


@dataclass(frozen=True, slots=True)
class Gemma4Ears:
    """Sizes of what listens to spectra. *channels*: of its two convolutions."""

    hidden_size: int
    num_layers: int
    num_heads: int
    kernel: int
    output_size: int
    channels: tuple[int, int]
    clipped: bool


@dataclass(frozen=True, slots=True)
class Gemma4Glance:
    """Sizes of the one layer that takes patches as they are: *patch*: values of a patch; *samples*: of a moment of sound."""

    hidden_size: int
    patch: int
    positions: int
    samples: int


@dataclass(frozen=True, slots=True)
class Gemma4TextConfig:
    """Sizes of one language model. ``size``: "e2b", "e4b", "12b" or "31b". ``per_layer``: width of what each layer is told of each token
    (0: nothing). ``global_…``: of the layers that attend to everything. ``same_values``: whether keys are their values. ``wide_after``:
    whether the last layers, which share keys and values (as many as ``shared``), are twice as wide inside.
    """

    size: str
    vocabulary: int
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_key_heads: int
    num_global_key_heads: int
    head_width: int
    global_head_width: int
    per_layer: int
    same_values: bool
    wide_after: bool
    shared: int
    window: int
    eyes: Gemma4Eyes | None = None
    ears: Gemma4Ears | None = None
    glance: Gemma4Glance | None = None
    eps: float = 1e-6

    def kinds(self) -> list[str]:
        """Of each layer, ``NEAR`` or ``FAR``."""
        every = GLOBAL_EVERY[self.size]
        return [NEAR if (number + 1) % every else FAR for number in range(self.num_layers)]

    def transformers_arguments(self) -> dict[str, Any]:
        """Constructor arguments of transformers' ``Gemma4TextConfig``."""
        return {
            "vocab_size": self.vocabulary,
            "vocab_size_per_layer_input": self.vocabulary,
            "hidden_size": self.hidden_size,
            "intermediate_size": self.intermediate_size,
            "num_hidden_layers": self.num_layers,
            "num_attention_heads": self.num_heads,
            "num_key_value_heads": self.num_key_heads,
            "num_global_key_value_heads": self.num_global_key_heads if self.same_values else None,
            "head_dim": self.head_width,
            "global_head_dim": self.global_head_width,
            "rms_norm_eps": self.eps,
            "sliding_window": self.window,
            "layer_types": self.kinds(),
            "hidden_size_per_layer_input": self.per_layer,
            "attention_k_eq_v": self.same_values,
            "num_kv_shared_layers": self.shared,
            "use_double_wide_mlp": self.wide_after,
        }


GEMMA_4_E4B = Gemma4TextConfig(
    size=MEDIUM,
    vocabulary=262144,
    hidden_size=2560,
    intermediate_size=10240,
    num_layers=42,
    num_heads=8,
    num_key_heads=2,
    num_global_key_heads=2,
    head_width=256,
    global_head_width=512,
    per_layer=256,
    same_values=False,
    wide_after=False,
    shared=SHARED[MEDIUM],
    window=WINDOWS[MEDIUM],
)


def read_gemma4_config(shapes: Shapes, settings: Mapping[str, Any] | None = None) -> Gemma4TextConfig | None:
    """The model that *shapes* describe in ComfyUI's names (no prefix), or None if they describe none. *settings* are not asked."""
    if _LAYER.format(0) + "layer_scalar" not in shapes:
        return None
    count = count_blocks(shapes, "model.layers.{}.")
    size = LAYERS.get(count)
    if size is None or (size == UNIFIED) == (_attention(GLOBAL_EVERY[UNIFIED] - 1, "v_proj") in shapes):
        return None
    last = GLOBAL_EVERY[size] - 1
    names = ["model.embed_tokens.weight", _LAYER.format(0) + "mlp.gate_proj.weight", _LAYER.format(count - 1) + "mlp.gate_proj.weight"]
    names += [_attention(layer, name) for layer in (0, last) for name in ("q_proj", "k_proj", "q_norm")]
    if not all(name in shapes for name in names):
        return None
    table, wide, wider, queries, keys, head, _, far_keys, far_head = (shapes[name] for name in names)
    told = shapes.get("model.per_layer_projection_norm.weight")
    return Gemma4TextConfig(
        size=size,
        vocabulary=table[0],
        hidden_size=table[1],
        intermediate_size=wide[0],
        num_layers=count,
        num_heads=queries[0] // head[0],
        num_key_heads=keys[0] // head[0],
        num_global_key_heads=far_keys[0] // far_head[0],
        head_width=head[0],
        global_head_width=far_head[0],
        per_layer=0 if told is None else told[0],
        same_values=size == UNIFIED,
        wide_after=wider[0] == 2 * wide[0],
        shared=SHARED[size],
        window=WINDOWS[size],
        eyes=_read_eyes(shapes),
        ears=_read_ears(shapes),
        glance=_read_glance(shapes),
    )


def is_gemma4(size: str) -> Any:
    """Whether a Gemma 4 is that of *size*."""
    return lambda config: config.size == size


def gemma4_source(source: WeightSource) -> WeightSource:
    """The tensors of *source* that Gemma 4 is made of, with its tokenizer: no projection of LTX 2, no keys and values of layers that attend
    to an earlier one's.
    """
    shapes = source.shapes()
    depth = count_blocks(shapes, "model.layers.{}.")
    shared = SHARED[LAYERS[depth]]
    unused = [_LAYER.format(layer) + "self_attn." for layer in range(depth - shared, depth)]
    idle = tuple(name + part for name in unused for part in ("k_proj.", "v_proj.", "k_norm."))
    kept = {key: key for key in shapes if not key.startswith((f"{PROJECTION}.", *idle))}
    return RenamedSource(source, kept, {key: shapes[key] for key in kept})


def _attention(layer: int, name: str) -> str:
    return f"{_LAYER.format(layer)}self_attn.{name}.weight"


def _read_eyes(shapes: Shapes) -> Gemma4Eyes | None:
    patches, places = (
        shapes.get("vision_model.patch_embedder.input_proj.weight"),
        shapes.get("vision_model.patch_embedder.position_embedding_table"),
    )
    first = _EYE.format(0)
    wide, head = shapes.get(f"{first}mlp.gate_proj.linear.weight"), shapes.get(f"{first}self_attn.q_norm.weight")
    queries = shapes.get(f"{first}self_attn.q_proj.linear.weight")
    if patches is None or places is None or wide is None or head is None or queries is None:
        return None
    return Gemma4Eyes(
        hidden_size=patches[0],
        intermediate_size=wide[0],
        num_layers=count_blocks(shapes, "vision_model.encoder.layers.{}."),
        num_heads=queries[0] // head[0],
        head_width=head[0],
        patch_size=round((patches[1] // 3) ** 0.5),
        positions=places[1],
        clipped=f"{first}self_attn.q_proj.input_max" in shapes,
    )


def _read_ears(shapes: Shapes) -> Gemma4Ears | None:
    first = _EAR.format(0)
    names = [f"{first}lconv1d.depthwise_conv1d.weight", "audio_model.output_proj.weight", f"{first}self_attn.per_dim_scale"]
    names += [f"audio_model.subsample_conv_projection.layer{number}.conv.weight" for number in range(2)]
    if not all(name in shapes for name in names):
        return None
    kernel, out, scale, first_channels, second_channels = (shapes[name] for name in names)
    return Gemma4Ears(
        hidden_size=kernel[0],
        num_layers=count_blocks(shapes, "audio_model.layers.{}."),
        num_heads=kernel[0] // scale[0],
        kernel=kernel[-1],
        output_size=out[0],
        channels=(first_channels[0], second_channels[0]),
        clipped=f"{first}self_attn.q_proj.input_max" in shapes,
    )


def _read_glance(shapes: Shapes) -> Gemma4Glance | None:
    dense, places = shapes.get("vision_model.patch_dense.weight"), shapes.get("vision_model.pos_embedding")
    sound = shapes.get("audio_projector.embedding_projection.weight")
    if dense is None or places is None or sound is None:
        return None
    return Gemma4Glance(hidden_size=dense[0], patch=dense[1], positions=places[0], samples=sound[1])
