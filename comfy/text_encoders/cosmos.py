"""Names of Cosmos models that node packs import; see :mod:`comfy.placeholders`."""

from comfy.placeholders import placeholders

__getattr__, __dir__ = placeholders(
    __name__,
    "Cosmos models",
    "T5XXLModel:comfy.sd1_clip.SDClipModel CosmosT5XXL:comfy.sd1_clip.SD1ClipModel T5XXLTokenizer:comfy.sd1_clip.SDTokenizer "
    "CosmosT5Tokenizer:comfy.sd1_clip.SD1Tokenizer te()",
)
