"""Names of Stable Diffusion 3 models that node packs import; see :mod:`comfy.placeholders`."""

from comfy.placeholders import placeholders

__getattr__, __dir__ = placeholders(
    __name__,
    "Stable Diffusion 3 models",
    "T5XXLModel:comfy.sd1_clip.SDClipModel t5_xxl_detect() T5XXLTokenizer:comfy.sd1_clip.SDTokenizer SD3Tokenizer:object SD3ClipModel "
    "sd3_clip()",
)
