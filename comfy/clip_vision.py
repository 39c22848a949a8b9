"""Names of CLIP's image encoders that node packs import; see :mod:`comfy.placeholders`."""

from comfy.placeholders import placeholders

__getattr__, __dir__ = placeholders(
    __name__,
    "image encoders",
    "Output:object ClipVisionModel:object clip_preprocess() load() load_clipvision_from_sd() convert_to_transformers()",
)
