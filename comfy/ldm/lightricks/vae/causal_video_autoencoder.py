"""Names of LTX-Video models that node packs import; see :mod:`comfy.placeholders`."""

from comfy.placeholders import placeholders

__getattr__, __dir__ = placeholders(
    __name__,
    "LTX-Video models",
    "in_meta_context() mark_conv3d_ended() split2() add_exchange_cache() Encoder get_max_chunk_size() Decoder UNetMidBlock3D "
    "SpaceToDepthDownsample DepthToSpaceUpsample LayerNorm ResnetBlock3D patchify() unpatchify() processor VideoVAE",
)
