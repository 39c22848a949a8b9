"""Names of AuraFlow models that node packs import; see :mod:`comfy.placeholders`."""

from comfy.placeholders import placeholders

__getattr__, __dir__ = placeholders(
    __name__,
    "AuraFlow models",
    "PT5XlModel:comfy.sd1_clip.SDClipModel PT5XlTokenizer:comfy.sd1_clip.SDTokenizer AuraT5Tokenizer:comfy.sd1_clip.SD1Tokenizer "
    "AuraT5Model:comfy.sd1_clip.SD1ClipModel",
)
