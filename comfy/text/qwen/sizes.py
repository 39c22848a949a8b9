"""The sizes of Qwen's language models, read from tensor shapes: Qwen 2.5 and Qwen 3 (with eyes: Qwen2.5-VL and Qwen3-VL)."""

from dataclasses import dataclass
from typing import Any

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

    def transformers_arguments(self) -> dict[str, Any]:
        """Constructor arguments of transformers' ``Qwen3VLVisionConfig``."""
        return {
            "hidden_size": self.hidden_size,
            "intermediate_size": self.intermediate_size,
            "depth": self.depth,
            "num_heads": DEEP_EYE_HEADS,
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
