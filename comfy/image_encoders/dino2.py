"""Names of DINO encoders that node packs import; see :mod:`comfy.placeholders`."""

from comfy.placeholders import placeholders

__getattr__, __dir__ = placeholders(
    __name__,
    "DINO encoders",
    "Dino2AttentionOutput Dino2AttentionBlock LayerScale Dinov2MLP SwiGLUFFN Dino2Block RotaryPositionEmbedding2D Dino2Encoder "
    "Dino2PatchEmbeddings Dino2Embeddings Dinov2Model",
)
