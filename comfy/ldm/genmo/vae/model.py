"""Names of Mochi models that node packs import; see :mod:`comfy.placeholders`."""

from comfy.placeholders import placeholders

__getattr__, __dir__ = placeholders(
    __name__,
    "Mochi models",
    "cast_tuple() GroupNormSpatial PConv3d Conv1x1 DepthToSpaceTime norm_fn() ResBlock Attention AttentionBlock CausalUpsampleBlock "
    "block_fn() DownsampleBlock add_fourier_features() FourierFeatures Decoder LatentDistribution:object Encoder VideoVAE",
)
