"""The sizes of a T5 or UMT5 encoder, read from tensor shapes."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from comfy.families.sd_unet_config import count_blocks

Shape = tuple[int, ...]

TABLES = ("shared.weight", "encoder.embed_tokens.weight")  # where published files keep the token embeddings; the first that is there
_ATTENTION = "encoder.block.0.layer.0.SelfAttention."
_FEED_FORWARD = "encoder.block.0.layer.1.DenseReluDense."
_BIAS = "relative_attention_bias.weight"


@dataclass(frozen=True, slots=True)
class T5TextConfig:
    """Sizes of one encoder.

    ``gated``: feed-forward layers have a gate and GELU (T5 v1.1, UMT5) instead of ReLU alone (the first T5). ``bias_per_layer``: each
    layer has biases for relative positions (UMT5) instead of all sharing the first's.
    """

    vocabulary: int
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    head_width: int
    buckets: int
    gated: bool
    bias_per_layer: bool

    def transformers_arguments(self) -> dict[str, Any]:
        """Constructor arguments of transformers' ``T5Config`` and ``UMT5Config``."""
        return {
            "vocab_size": self.vocabulary,
            "d_model": self.hidden_size,
            "d_ff": self.intermediate_size,
            "num_layers": self.num_layers,
            "num_heads": self.num_heads,
            "d_kv": self.head_width,
            "relative_attention_num_buckets": self.buckets,
            "feed_forward_proj": "gated-gelu_pytorch_tanh" if self.gated else "relu",
        }


def read_t5_config(shapes: Mapping[str, Shape], settings: Mapping[str, Any] | None = None) -> T5TextConfig | None:
    """The encoder that *shapes* describe in transformers' names (no prefix), or None if they describe none.

    *settings* are not asked: everything is in the shapes.
    """
    table = next((shapes[name] for name in TABLES if name in shapes), None)
    queries, bias = shapes.get(f"{_ATTENTION}q.weight"), shapes.get(_ATTENTION + _BIAS)
    gated = f"{_FEED_FORWARD}wi_1.weight" in shapes
    wide = shapes.get(f"{_FEED_FORWARD}wi_1.weight" if gated else f"{_FEED_FORWARD}wi.weight")
    if table is None or queries is None or bias is None or wide is None:
        return None
    return T5TextConfig(
        vocabulary=table[0],
        hidden_size=table[1],
        intermediate_size=wide[0],
        num_layers=count_blocks(shapes, "encoder.block.{}."),
        num_heads=bias[1],
        head_width=queries[0] // bias[1],
        buckets=bias[0],
        gated=gated,
        bias_per_layer=f"encoder.block.1.layer.0.SelfAttention.{_BIAS}" in shapes,
    )
