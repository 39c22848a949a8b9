"""Names of Stable Cascade models that node packs import; see :mod:`comfy.placeholders`."""

from comfy.placeholders import placeholders

__getattr__, __dir__ = placeholders(
    __name__,
    "Stable Cascade models",
    "OptimizedAttention Attention2D LayerNorm2d_op() GlobalResponseNorm ResBlock AttnBlock FeedForwardBlock TimestepBlock",
)
