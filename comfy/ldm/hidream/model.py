"""Names of HiDream models that node packs import; see :mod:`comfy.placeholders`."""

from comfy.placeholders import placeholders

__getattr__, __dir__ = placeholders(
    __name__,
    "HiDream models",
    "EmbedND PatchEmbed PooledEmbed TimestepEmbed attention() HiDreamAttnProcessor_flashattn:object HiDreamAttention "
    "FeedForwardSwiGLU MoEGate MOEFeedForwardSwiGLU TextProjection BlockType:object HiDreamImageSingleTransformerBlock "
    "HiDreamImageTransformerBlock HiDreamImageBlock HiDreamImageTransformer2DModel",
)
