"""Names of Lumina models that node packs import; see :mod:`comfy.placeholders`."""

from comfy.placeholders import placeholders

__getattr__, __dir__ = placeholders(
    __name__,
    "Lumina models",
    "invert_slices() modulate() apply_gate() clamp_fp16() JointAttention FeedForward JointTransformerBlock FinalLayer pad_zimage() "
    "pos_ids_x() NextDiT PixelResBlock DCTFinalLayer SimpleMLPAdaLN NextDiTPixelSpace:NextDiT",
)
