"""Names of Cosmos models that node packs import; see :mod:`comfy.placeholders`."""

from comfy.placeholders import placeholders

__getattr__, __dir__ = placeholders(
    __name__,
    "Cosmos models",
    "get_normalization() BaseAttentionOp Attention FeedForward GPT2FeedForward:FeedForward modulate() Timesteps TimestepEmbedding "
    "FourierFeatures PatchEmbed FinalLayer VideoAttn adaln_norm_state() DITBuildingBlock GeneralDITTransformerBlock",
)
