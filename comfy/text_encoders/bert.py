"""Names of BERT encoders that node packs import; see :mod:`comfy.placeholders`."""

from comfy.placeholders import placeholders

__getattr__, __dir__ = placeholders(
    __name__,
    "BERT encoders",
    "BertAttention BertOutput BertAttentionBlock BertIntermediate BertBlock BertEncoder BertEmbeddings BertModel_ BertModel",
)
