"""Names of Anima models that node packs import; see :mod:`comfy.placeholders`."""

from comfy.placeholders import placeholders

__getattr__, __dir__ = placeholders(
    __name__,
    "Anima models",
    "Qwen3Tokenizer:comfy.sd1_clip.SDTokenizer T5XXLTokenizer:comfy.sd1_clip.SDTokenizer AnimaTokenizer:object "
    "Qwen3_06BModel:comfy.sd1_clip.SDClipModel AnimaTEModel:comfy.sd1_clip.SD1ClipModel te()",
)
