"""Names of Qwen Image models that node packs import; see :mod:`comfy.placeholders`."""

from comfy.placeholders import placeholders

__getattr__, __dir__ = placeholders(
    __name__,
    "Qwen Image models",
    "Qwen25_7BVLITokenizer:comfy.sd1_clip.SDTokenizer QwenImageTokenizer:comfy.sd1_clip.SD1Tokenizer "
    "Qwen25_7BVLIModel:comfy.sd1_clip.SDClipModel QwenImageTEModel:comfy.sd1_clip.SD1ClipModel te()",
)
