"""Names of ACE-Step models that node packs import; see :mod:`comfy.placeholders`."""

from comfy.placeholders import placeholders

__getattr__, __dir__ = placeholders(
    __name__,
    "ACE-Step models",
    "Attention CustomLiteLAProcessor2_0:object CustomerAttnProcessor2_0:object val2list() val2tuple() t2i_modulate() "
    "get_same_padding() ConvLayer GLUMBConv LinearTransformerBlock",
)
