"""Names of Kandinsky models that node packs import; see :mod:`comfy.placeholders`."""

from comfy.placeholders import placeholders

__getattr__, __dir__ = placeholders(
    __name__,
    "Kandinsky models",
    "attention() apply_scale_shift_norm() apply_gate_sum() get_shift_scale_gate() get_freqs() TimeEmbeddings TextEmbeddings "
    "VisualEmbeddings Modulation SelfAttention CrossAttention:SelfAttention FeedForward OutLayer TransformerEncoderBlock "
    "TransformerDecoderBlock Kandinsky5",
)
