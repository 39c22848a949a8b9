"""Names of T5 encoders that node packs import; see :mod:`comfy.placeholders`."""

from comfy.placeholders import placeholders

__getattr__, __dir__ = placeholders(
    __name__,
    "T5 encoders",
    "T5LayerNorm T5DenseActDense T5DenseGatedActDense T5LayerFF T5Attention T5LayerSelfAttention T5Block T5Stack T5",
)
