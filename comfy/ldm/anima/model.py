"""Names of Anima models that node packs import; see :mod:`comfy.placeholders`."""

from comfy.placeholders import placeholders

__getattr__, __dir__ = placeholders(
    __name__, "Anima models", "rotate_half() apply_rotary_pos_emb() RotaryEmbedding Attention TransformerBlock LLMAdapter Anima"
)
