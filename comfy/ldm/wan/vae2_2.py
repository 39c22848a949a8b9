"""Names of Wan models that node packs import; see :mod:`comfy.placeholders`."""

from comfy.placeholders import placeholders

__getattr__, __dir__ = placeholders(
    __name__,
    "Wan models",
    "Resample ResidualBlock patchify() unpatchify() AvgDown3D DupUp3D Down_ResidualBlock Up_ResidualBlock Encoder3d Decoder3d "
    "count_conv3d() WanVAE",
)
