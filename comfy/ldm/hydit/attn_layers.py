"""Names of Hunyuan DiT models that node packs import; see :mod:`comfy.placeholders`."""

from comfy.placeholders import placeholders

__getattr__, __dir__ = placeholders(
    __name__, "Hunyuan DiT models", "reshape_for_broadcast() rotate_half() apply_rotary_emb() CrossAttention Attention"
)
