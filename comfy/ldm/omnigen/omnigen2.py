"""Names of OmniGen models that node packs import; see :mod:`comfy.placeholders`."""

from comfy.placeholders import placeholders

__getattr__, __dir__ = placeholders(
    __name__,
    "OmniGen models",
    "apply_rotary_emb() swiglu() TimestepEmbedding LuminaRMSNormZero LuminaLayerNormContinuous LuminaFeedForward "
    "Lumina2CombinedTimestepCaptionEmbedding Attention OmniGen2TransformerBlock OmniGen2RotaryPosEmbed OmniGen2Transformer2DModel",
)
