"""Latents of several kinds at once, as models of video with sound use them."""

from comfy.placeholders import placeholders

__getattr__, __dir__ = placeholders(__name__, "models of several latents at once", "NestedTensor:object cat_nested()")
