"""Names of ACE-Step models that node packs import; see :mod:`comfy.placeholders`."""

from comfy.placeholders import placeholders

__getattr__, __dir__ = placeholders(
    __name__,
    "ACE-Step models",
    "VoiceBpeTokenizer:object UMT5BaseModel:comfy.sd1_clip.SDClipModel UMT5BaseTokenizer:comfy.sd1_clip.SDTokenizer "
    "LyricsTokenizer:comfy.sd1_clip.SDTokenizer AceT5Tokenizer:object AceT5Model",
)
