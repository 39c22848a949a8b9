"""Names of Mochi models that node packs import; see :mod:`comfy.placeholders`."""

from comfy.placeholders import placeholders

__getattr__, __dir__ = placeholders(
    __name__,
    "Mochi models",
    "T5XXLModel MochiT5XXL:comfy.sd1_clip.SD1ClipModel T5XXLTokenizer:comfy.sd1_clip.SDTokenizer "
    "MochiT5Tokenizer:comfy.sd1_clip.SD1Tokenizer mochi_te()",
)
