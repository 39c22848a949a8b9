"""Names of T2I adapters that node packs import; see :mod:`comfy.placeholders`."""

from comfy.placeholders import placeholders

__getattr__, __dir__ = placeholders(
    __name__,
    "T2I adapters",
    "conv_nd() avg_pool_nd() Downsample ResnetBlock Adapter LayerNorm:object QuickGELU ResidualAttentionBlock "
    "ResnetBlock_light extractor Adapter_light",
)
