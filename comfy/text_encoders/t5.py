"""T5 and UMT5 encoders: the network under ComfyUI's name; its layers' names are :mod:`comfy.placeholders`."""

from comfy.families.t5_text import T5Transformer as T5
from comfy.placeholders import placeholders

__all__ = ["T5"]

__getattr__, __dir__ = placeholders(
    __name__,
    "ComfyUI's own T5 layers (transformers' are used here)",
    "T5LayerNorm T5DenseActDense T5DenseGatedActDense T5LayerFF T5Attention T5LayerSelfAttention T5Block T5Stack",
)
