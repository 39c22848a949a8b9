"""Names of Long-CLIP encoders that node packs import; see :mod:`comfy.placeholders`."""

from comfy.placeholders import placeholders

__getattr__, __dir__ = placeholders(__name__, "Long-CLIP encoders", "model_options_long_clip()")
