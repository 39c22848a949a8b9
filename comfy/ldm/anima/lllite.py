"""Names of Anima models that node packs import; see :mod:`comfy.placeholders`."""

from comfy.placeholders import placeholders

__getattr__, __dir__ = placeholders(
    __name__,
    "Anima models",
    "AnimaLLLiteResBlock AnimaLLLiteASPP AnimaLLLiteConditioning AnimaLLLiteModule AnimaLLLite AnimaLLLitePatch:object "
    "AnimaLLLiteAttentionPatch:object AnimaLLLiteMLPPatch:object",
)
