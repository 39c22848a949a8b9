"""Names of Hunyuan 3D models that node packs import; see :mod:`comfy.placeholders`."""

from comfy.placeholders import placeholders

__getattr__, __dir__ = placeholders(__name__, "Hunyuan 3D models", "Hunyuan3Dv2")
