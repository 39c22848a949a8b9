"""Names of Hunyuan DiT models that node packs import; see :mod:`comfy.placeholders`."""

from comfy.placeholders import placeholders

__getattr__, __dir__ = placeholders(
    __name__,
    "Hunyuan DiT models",
    "HyditBertModel:comfy.sd1_clip.SDClipModel HyditBertTokenizer:comfy.sd1_clip.SDTokenizer MT5XLModel:comfy.sd1_clip.SDClipModel "
    "MT5XLTokenizer:comfy.sd1_clip.SDTokenizer HyditTokenizer:object HyditModel",
)
