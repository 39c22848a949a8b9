"""Names for self-attention guidance that node packs import; see :mod:`comfy.placeholders`."""

from comfy.placeholders import placeholders

NODE_CLASS_MAPPINGS: dict[str, type] = {}

__getattr__, __dir__ = placeholders(
    __name__, "self-attention guidance", "attention_basic_with_sim() create_blur_map() gaussian_blur_2d() SelfAttentionGuidance:object"
)
