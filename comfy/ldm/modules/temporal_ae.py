"""Names of video models that node packs import; see :mod:`comfy.placeholders`."""

from comfy.placeholders import placeholders

__getattr__, __dir__ = placeholders(
    __name__,
    "video models",
    "partialclass() VideoResBlock AE3DConv AttnVideoBlock make_time_attn() Conv2DWrapper:object VideoDecoder:object",
)
