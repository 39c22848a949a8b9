"""Names of GLIGEN models that node packs import; see :mod:`comfy.placeholders`."""

from comfy.placeholders import placeholders

__getattr__, __dir__ = placeholders(
    __name__,
    "GLIGEN models",
    "GatedCrossAttentionDense GatedSelfAttentionDense GatedSelfAttentionDense2 FourierEmbedder:object PositionNet Gligen load_gligen()",
)
