"""Names of Z-Image models that node packs import; see :mod:`comfy.placeholders`."""

from comfy.placeholders import placeholders

__getattr__, __dir__ = placeholders(
    __name__,
    "Z-Image models",
    "Qwen3Tokenizer:comfy.sd1_clip.SDTokenizer ZImageTokenizer:comfy.sd1_clip.SD1Tokenizer Qwen3_4BModel:comfy.sd1_clip.SDClipModel "
    "ZImageTEModel:comfy.sd1_clip.SD1ClipModel te()",
)
