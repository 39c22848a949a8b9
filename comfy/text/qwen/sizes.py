"""The sizes of Qwen's language models, read from tensor shapes: Qwen 2.5 and Qwen 3 (with eyes: Qwen2.5-VL and Qwen3-VL)."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from comfy.families.sd_unet_config import count_blocks

Shape = tuple[int, ...]

HEAD = 128  # of a head of Qwen 2.5, which no shape tells
EYE_HEAD = 80
UNTIED_WIDTH = 4096  # of the Qwen 3 whose head is not its table of embeddings
DEEP_EYE_HEADS = 16  # of Qwen3-VL's, which no shape tells
DEEP_THETA = 5000000.0
LARGE_EYES, LARGE_TOLD = 27, (8, 16, 24)  # the number of layers of its larger eyes, and after which they tell
ROPE_SECTIONS = (16, 24, 24)  # how many of a head's pairs turn by frame, row and column, in Qwen2.5-VL
_FIRST = "model.layers.0."
_DEEP = "visual.deepstack_merger_list.0.norm.weight"


@dataclass(frozen=True, slots=True)
class EyesConfig:
    """Sizes of the part that looks at pictures."""

    hidden_size: int
    intermediate_size: int
    depth: int
    output_size: int
    patch_size: int
    frames: int

    def transformers_arguments(self) -> dict[str, Any]:
        """Constructor arguments of transformers' ``Qwen2_5_VLVisionConfig``."""
        return {
            "hidden_size": self.hidden_size,
            "intermediate_size": self.intermediate_size,
            "depth": self.depth,
            "num_heads": self.hidden_size // EYE_HEAD,
            "out_hidden_size": self.output_size,
            "patch_size": self.patch_size,
            "temporal_patch_size": self.frames,
        }


@dataclass(frozen=True, slots=True)
class DeepEyesConfig:
    """Sizes of the part of Qwen3-VL that looks at pictures. *told*: after which of its layers it tells the language model of them."""

    hidden_size: int
    intermediate_size: int
    depth: int
    output_size: int
    patch_size: int
    frames: int
    positions: int
    told: tuple[int, ...]
    heads: int = DEEP_EYE_HEADS

    def transformers_arguments(self) -> dict[str, Any]:
        """Constructor arguments of transformers' ``Qwen3VLVisionConfig``."""
        return {
            "hidden_size": self.hidden_size,
            "intermediate_size": self.intermediate_size,
            "depth": self.depth,
            "num_heads": self.heads,
            "out_hidden_size": self.output_size,
            "patch_size": self.patch_size,
            "temporal_patch_size": self.frames,
            "num_position_embeddings": self.positions,
            "deepstack_visual_indexes": list(self.told),
        }


@dataclass(frozen=True, slots=True)
class QwenTextConfig:
    """Sizes of one language model. ``normalised``: queries and keys are normalised (Qwen 3), else projections have biases (Qwen 2.5).

    ``has_head``: whether what says the next token is more than the table of embeddings, and is in the file.
    """

    vocabulary: int
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_key_heads: int
    head_width: int
    normalised: bool
    eyes: "EyesConfig | DeepEyesConfig | None" = None
    has_head: bool = False
    rope_theta: float = 1000000.0
    eps: float = 1e-6

    def transformers_arguments(self) -> dict[str, Any]:
        """Constructor arguments of transformers' ``Qwen2Config`` and ``Qwen3Config``."""
        return {
            "vocab_size": self.vocabulary,
            "hidden_size": self.hidden_size,
            "intermediate_size": self.intermediate_size,
            "num_hidden_layers": self.num_layers,
            "num_attention_heads": self.num_heads,
            "num_key_value_heads": self.num_key_heads,
            "head_dim": self.head_width,
            "rms_norm_eps": self.eps,
        }


def read_qwen_config(shapes: Mapping[str, Shape], settings: Mapping[str, Any] | None = None) -> QwenTextConfig | None:
    """The model that *shapes* describe in published names (no prefix), or None if they describe none. *settings* are not asked."""
    table, wide = shapes.get("model.embed_tokens.weight"), shapes.get(f"{_FIRST}mlp.gate_proj.weight")
    queries, keys = shapes.get(f"{_FIRST}self_attn.q_proj.weight"), shapes.get(f"{_FIRST}self_attn.k_proj.weight")
    norm, bias = shapes.get(f"{_FIRST}self_attn.q_norm.weight"), shapes.get(f"{_FIRST}self_attn.k_proj.bias")
    if table is None or wide is None or queries is None or keys is None or (norm is None) == (bias is None):
        return None
    if f"{_FIRST}post_feedforward_layernorm.weight" in shapes or _DEEP in shapes:  # Gemma, Qwen3-VL
        return None
    head = HEAD if norm is None else norm[0]
    return QwenTextConfig(
        vocabulary=table[0],
        hidden_size=table[1],
        intermediate_size=wide[0],
        num_layers=count_blocks(shapes, "model.layers.{}."),
        num_heads=queries[0] // head,
        num_key_heads=keys[0] // head,
        head_width=head,
        normalised=norm is not None,
        eyes=_read_eyes(shapes),
        has_head=table[1] == UNTIED_WIDTH and norm is not None and "lm_head.weight" in shapes,
    )


def _read_eyes(shapes: Mapping[str, Shape]) -> EyesConfig | None:
    patches, out = shapes.get("visual.patch_embed.proj.weight"), shapes.get("visual.merger.mlp.2.weight")
    wide = shapes.get("visual.blocks.0.mlp.gate_proj.weight")
    if patches is None or out is None or wide is None:
        return None
    return EyesConfig(
        hidden_size=patches[0],
        intermediate_size=wide[0],
        depth=count_blocks(shapes, "visual.blocks.{}."),
        output_size=out[0],
        patch_size=patches[-1],
        frames=patches[2],
    )


def qwen3_vl_name(key: str) -> str:
    """ComfyUI's name for the tensor *key* of a file of Qwen3-VL, which has transformers' names."""
    for theirs, ours in (("model.language_model.", "model."), ("model.visual.", "visual.")):
        if key.startswith(theirs):
            return ours + key.removeprefix(theirs)
    return key


def read_qwen3_vl_config(shapes: Mapping[str, Shape], settings: Mapping[str, Any] | None = None) -> QwenTextConfig | None:
    """The Qwen3-VL that *shapes* describe in transformers' names or ComfyUI's (no prefix), or None. *settings* are not asked."""
    own = {qwen3_vl_name(key): shape for key, shape in shapes.items()}
    if _DEEP not in own:
        return None
    language = read_qwen_config({key: shape for key, shape in own.items() if key.startswith("model.")})
    patches, places = own.get("visual.patch_embed.proj.weight"), own.get("visual.pos_embed.weight")
    wide, out = own.get("visual.blocks.0.mlp.linear_fc1.weight"), own.get("visual.merger.linear_fc2.weight")
    if language is None or patches is None or places is None or wide is None or out is None:
        return None
    depth = count_blocks(own, "visual.blocks.{}.")
    eyes = DeepEyesConfig(
        hidden_size=patches[0],
        intermediate_size=wide[0],
        depth=depth,
        output_size=out[0],
        patch_size=patches[-1],
        frames=patches[2],
        positions=places[0],
        told=_told(depth, count_blocks(own, "visual.deepstack_merger_list.{}.")),
    )
    has_head = language.hidden_size == UNTIED_WIDTH and "lm_head.weight" in own
    return replace(language, eyes=eyes, rope_theta=DEEP_THETA, has_head=has_head)


def _told(depth: int, count: int) -> tuple[int, ...]:
    """After which of *depth* layers eyes tell, which do so *count* times."""
    if depth == LARGE_EYES and count == len(LARGE_TOLD):
        return LARGE_TOLD
    step = max(depth // (count + 1), 1)
    return tuple(step * number - 1 for number in range(1, count + 1))
