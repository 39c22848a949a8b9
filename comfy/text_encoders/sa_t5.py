"""Names of Stable Audio models that node packs import; see :mod:`comfy.placeholders`."""

from comfy.placeholders import placeholders

__getattr__, __dir__ = placeholders(
    __name__,
    "Stable Audio models",
    "T5BaseModel:comfy.sd1_clip.SDClipModel T5BaseTokenizer:comfy.sd1_clip.SDTokenizer SAT5Tokenizer:comfy.sd1_clip.SD1Tokenizer "
    "SAT5Model:comfy.sd1_clip.SD1ClipModel",
)
