"""Names of Wan models that node packs import; see :mod:`comfy.placeholders`."""

from comfy.placeholders import placeholders

__getattr__, __dir__ = placeholders(
    __name__,
    "Wan models",
    "CausalConv1d FaceEncoder get_norm_layer() FaceAdapter FaceBlock upfirdn2d_native() upfirdn2d() FusedLeakyReLU fused_leaky_relu() "
    "Blur ScaledLeakyReLU EqualConv2d EqualLinear ConvLayer:object ResBlock EncoderApp Encoder Direction Synthesis Generator "
    "AnimateWanModel",
)
