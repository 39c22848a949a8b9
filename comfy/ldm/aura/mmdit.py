"""Names of AuraFlow models that node packs import; see :mod:`comfy.placeholders`."""

from comfy.placeholders import placeholders

__getattr__, __dir__ = placeholders(
    __name__,
    "AuraFlow models",
    "modulate() find_multiple() MLP MultiHeadLayerNorm SingleAttention DoubleAttention MMDiTBlock DiTBlock TimestepEmbedder MMDiT",
)
