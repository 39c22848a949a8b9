"""Names of Stable Diffusion 3 models that node packs import; see :mod:`comfy.placeholders`."""

from comfy.placeholders import placeholders

__getattr__, __dir__ = placeholders(__name__, "Stable Diffusion 3 models", "ControlNet:object")
