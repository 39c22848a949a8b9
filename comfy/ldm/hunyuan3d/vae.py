"""Names of Hunyuan 3D models that node packs import; see :mod:`comfy.placeholders`."""

from comfy.placeholders import placeholders

__getattr__, __dir__ = placeholders(
    __name__,
    "Hunyuan 3D models",
    "fps() PointCrossAttention normalize_mesh() sample_pointcloud() detect_sharp_edges() sharp_sample_pointcloud() "
    "load_surface_sharpedge() SharpEdgeSurfaceLoader:object DiagonalGaussianDistribution:object VanillaVolumeDecoder:object "
    "FourierEmbedder CrossAttentionProcessor:object DropPath MLP QKVMultiheadCrossAttention MultiheadCrossAttention "
    "ResidualCrossAttentionBlock QKVMultiheadAttention MultiheadAttention ResidualAttentionBlock Transformer CrossAttentionDecoder "
    "ShapeVAE",
)
