"""Names of Wan models that node packs import; see :mod:`comfy.placeholders`."""

from comfy.placeholders import placeholders

__getattr__, __dir__ = placeholders(
    __name__,
    "Wan models",
    "UMT5XXlModel:comfy.sd1_clip.SDClipModel UMT5XXlTokenizer:comfy.sd1_clip.SDTokenizer WanT5Tokenizer:comfy.sd1_clip.SD1Tokenizer "
    "WanT5Model:comfy.sd1_clip.SD1ClipModel te()",
)
