"""Names of Stable Diffusion 2 models that node packs import; see :mod:`comfy.placeholders`."""

from comfy.placeholders import placeholders

__getattr__, __dir__ = placeholders(
    __name__,
    "Stable Diffusion 2 models",
    "SD2ClipHModel:comfy.sd1_clip.SDClipModel SD2ClipHTokenizer:comfy.sd1_clip.SDTokenizer SD2Tokenizer:comfy.sd1_clip.SD1Tokenizer "
    "SD2ClipModel:comfy.sd1_clip.SD1ClipModel",
)
