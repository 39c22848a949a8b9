"""Names of CogVideoX models that node packs import; see :mod:`comfy.placeholders`."""

from comfy.placeholders import placeholders

__getattr__, __dir__ = placeholders(
    __name__,
    "CogVideoX models",
    "CausalConv3d SpatialNorm3D ResnetBlock3D Downsample3D Upsample3D DownBlock3D MidBlock3D UpBlock3D Encoder3D Decoder3D "
    "AutoencoderKLCogVideoX",
)
