"""Names of PixArt models that node packs import; see :mod:`comfy.placeholders`."""

from comfy.placeholders import placeholders

__getattr__, __dir__ = placeholders(__name__, "PixArt models", "get_2d_sincos_pos_embed_torch() PixArtMSBlock PixArtMS")
