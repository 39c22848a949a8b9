"""Names of models in folders of the Diffusers library that node packs import; see :mod:`comfy.placeholders`."""

from comfy.placeholders import placeholders

__getattr__, __dir__ = placeholders(__name__, "models in folders of the Diffusers library", "first_file() load_diffusers()")
