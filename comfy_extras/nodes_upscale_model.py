"""Names for upscaling models that node packs import; see :mod:`comfy.placeholders`."""

from comfy.placeholders import placeholders

NODE_CLASS_MAPPINGS: dict[str, type] = {}

__getattr__, __dir__ = placeholders(__name__, "upscaling models", "UpscaleModelLoader:object ImageUpscaleWithModel:object")
