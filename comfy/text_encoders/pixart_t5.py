"""Names of PixArt models that node packs import; see :mod:`comfy.placeholders`."""

from comfy.placeholders import placeholders

__getattr__, __dir__ = placeholders(
    __name__,
    "PixArt models",
    "T5XXLModel PixArtT5XXL:comfy.sd1_clip.SD1ClipModel T5XXLTokenizer:comfy.sd1_clip.SDTokenizer "
    "PixArtTokenizer:comfy.sd1_clip.SD1Tokenizer pixart_te()",
)
