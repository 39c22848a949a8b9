"""Names of Stable Audio models that node packs import; see :mod:`comfy.placeholders`."""

from comfy.placeholders import placeholders

__getattr__, __dir__ = placeholders(
    __name__,
    "Stable Audio models",
    "FourierFeatures LayerNorm RMSNorm GLU AbsolutePositionalEmbedding ScaledSinusoidalEmbedding RotaryEmbedding rotate_half() "
    "apply_rotary_pos_emb() FeedForward Attention ConformerModule TransformerBlock ContinuousTransformer AudioDiffusionTransformer",
)
