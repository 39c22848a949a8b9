"""Names of Hunyuan Image models that node packs import; see :mod:`comfy.placeholders`."""

from comfy.placeholders import placeholders

__getattr__, __dir__ = placeholders(
    __name__,
    "Hunyuan Image models",
    "ByT5SmallTokenizer:comfy.sd1_clip.SDTokenizer HunyuanImageTokenizer:object Qwen25_7BVLIModel:comfy.sd1_clip.SDClipModel "
    "ByT5SmallModel:comfy.sd1_clip.SDClipModel HunyuanImageTEModel te()",
)
