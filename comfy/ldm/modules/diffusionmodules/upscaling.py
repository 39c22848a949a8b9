"""Names of models with noisy extra pictures that node packs import; see :mod:`comfy.placeholders`."""

from comfy.placeholders import placeholders

__getattr__, __dir__ = placeholders(
    __name__,
    "models with noisy extra pictures",
    "AbstractLowScaleModel SimpleImageConcat:AbstractLowScaleModel ImageConcatWithNoiseAugmentation:AbstractLowScaleModel",
)
