"""Names of Stable Audio models that node packs import; see :mod:`comfy.placeholders`."""

from comfy.placeholders import placeholders

__getattr__, __dir__ = placeholders(
    __name__,
    "Stable Audio models",
    "LearnedPositionalEmbedding TimePositionalEmbedding() ExpoFourierFeatures NumberEmbedder Conditioner NumberConditioner:Conditioner",
)
