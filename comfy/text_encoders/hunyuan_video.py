"""Names of Hunyuan Video models that node packs import; see :mod:`comfy.placeholders`."""

from comfy.placeholders import placeholders

__getattr__, __dir__ = placeholders(
    __name__,
    "Hunyuan Video models",
    "llama_detect() LLAMA3Tokenizer:comfy.sd1_clip.SDTokenizer LLAMAModel:comfy.sd1_clip.SDClipModel HunyuanVideoTokenizer:object "
    "HunyuanVideo15Tokenizer:object HunyuanVideoClipModel hunyuan_video_clip()",
)
