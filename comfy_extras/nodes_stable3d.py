"""Names for Stable Zero123 models that node packs import; see :mod:`comfy.placeholders`."""

from comfy.placeholders import placeholders

NODE_CLASS_MAPPINGS: dict[str, type] = {}

__getattr__, __dir__ = placeholders(
    __name__,
    "Stable Zero123 models",
    "camera_embeddings() StableZero123_Conditioning:object StableZero123_Conditioning_Batched:object SV3D_Conditioning:object",
)
