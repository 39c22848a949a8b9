"""Names of LTX-Video models that node packs import; see :mod:`comfy.placeholders`."""

from comfy.placeholders import placeholders

__getattr__, __dir__ = placeholders(
    __name__,
    "LTX-Video models",
    "T5XXLTokenizer:comfy.sd1_clip.SDTokenizer LTXVT5Tokenizer:comfy.sd1_clip.SD1Tokenizer ltxv_te() Gemma3_Tokenizer:object "
    "Gemma3_12BTokenizer:Gemma3_Tokenizer LTXAVGemmaTokenizer:comfy.sd1_clip.SD1Tokenizer ltxav_gemma4_tokenizer() "
    "Gemma3_12BModel:comfy.sd1_clip.SDClipModel DualLinearProjection LTXAVTEModel ltxav_te() sd_detect() gemma3_te()",
)
