"""Names of Hunyuan Video models that node packs import; see :mod:`comfy.placeholders`."""

from comfy.placeholders import placeholders

__getattr__, __dir__ = placeholders(
    __name__,
    "Hunyuan Video models",
    "HunyuanVideoParams:object SelfAttentionRef TokenRefinerBlock IndividualTokenRefiner TokenRefiner ByT5Mapper HunyuanVideo",
)
