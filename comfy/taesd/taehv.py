"""Names of tiny video autoencoders that node packs import; see :mod:`comfy.placeholders`."""

from comfy.placeholders import placeholders

__getattr__, __dir__ = placeholders(
    __name__, "tiny video autoencoders", "conv() Clamp MemBlock TPool TGrow apply_model_with_memblocks() TAEHV"
)
