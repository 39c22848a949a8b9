"""Names of HiDream models that node packs import; see :mod:`comfy.placeholders`."""

from comfy.placeholders import placeholders

__getattr__, __dir__ = placeholders(__name__, "HiDream models", "HiDreamTokenizer:object HiDreamTEModel hidream_clip()")
