"""Names of Qwen Image models that node packs import; see :mod:`comfy.placeholders`."""

from comfy.placeholders import placeholders

__getattr__, __dir__ = placeholders(
    __name__,
    "Qwen Image models",
    "GELU FeedForward apply_rotary_emb() QwenTimestepProjEmbeddings Attention QwenImageTransformerBlock LastLayer "
    "QwenImageTransformer2DModel",
)
