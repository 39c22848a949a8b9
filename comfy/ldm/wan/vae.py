"""Names of Wan models that node packs import; see :mod:`comfy.placeholders`."""

from comfy.placeholders import placeholders

__getattr__, __dir__ = placeholders(
    __name__, "Wan models", "CausalConv3d RMS_norm Resample ResidualBlock AttentionBlock Encoder3d Decoder3d count_cache_layers() WanVAE"
)
