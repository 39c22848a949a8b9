"""Names of Lumina models that node packs import; see :mod:`comfy.placeholders`."""

from comfy.placeholders import placeholders

__getattr__, __dir__ = placeholders(
    __name__,
    "Lumina models",
    "Gemma2BTokenizer:comfy.sd1_clip.SDTokenizer Gemma3_4BTokenizer:object LuminaTokenizer:comfy.sd1_clip.SD1Tokenizer "
    "NTokenizer:comfy.sd1_clip.SD1Tokenizer Gemma2_2BModel:comfy.sd1_clip.SDClipModel Gemma3_4BModel:comfy.sd1_clip.SDClipModel "
    "Gemma3_4B_Vision_Model:comfy.sd1_clip.SDClipModel LuminaModel:comfy.sd1_clip.SD1ClipModel te()",
)
