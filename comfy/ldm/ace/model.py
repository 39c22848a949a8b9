"""Names of ACE-Step models that node packs import; see :mod:`comfy.placeholders`."""

from comfy.placeholders import placeholders

__getattr__, __dir__ = placeholders(
    __name__, "ACE-Step models", "cross_norm() Qwen2RotaryEmbedding T2IFinalLayer PatchEmbed ACEStepTransformer2DModel"
)
