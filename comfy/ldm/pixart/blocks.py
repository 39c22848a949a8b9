"""Names of PixArt models that node packs import; see :mod:`comfy.placeholders`."""

from comfy.placeholders import placeholders

__getattr__, __dir__ = placeholders(
    __name__,
    "PixArt models",
    "modulate() t2i_modulate() MultiHeadCrossAttention AttentionKVCompress FinalLayer T2IFinalLayer MaskFinalLayer DecoderLayer "
    "SizeEmbedder:object LabelEmbedder CaptionEmbedder CaptionEmbedderDoubleBr",
)
