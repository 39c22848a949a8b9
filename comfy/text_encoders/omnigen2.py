"""Names of OmniGen models that node packs import; see :mod:`comfy.placeholders`."""

from comfy.placeholders import placeholders

__getattr__, __dir__ = placeholders(
    __name__,
    "OmniGen models",
    "Qwen25_3BTokenizer:comfy.sd1_clip.SDTokenizer Omnigen2Tokenizer:comfy.sd1_clip.SD1Tokenizer "
    "Qwen25_3BModel:comfy.sd1_clip.SDClipModel Omnigen2Model:comfy.sd1_clip.SD1ClipModel te()",
)
