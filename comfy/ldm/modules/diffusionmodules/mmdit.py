"""Names of Stable Diffusion 3 models that node packs import; see :mod:`comfy.placeholders`."""

from comfy.placeholders import placeholders

__getattr__, __dir__ = placeholders(
    __name__,
    "Stable Diffusion 3 models",
    "default() Mlp PatchEmbed modulate() get_2d_sincos_pos_embed() get_2d_sincos_pos_embed_from_grid() "
    "get_1d_sincos_pos_embed_from_grid() get_1d_sincos_pos_embed_from_grid_torch() get_2d_sincos_pos_embed_torch() TimestepEmbedder "
    "VectorEmbedder split_qkv() SelfAttention RMSNorm SwiGLUFeedForward DismantledBlock gate_cat() block_mixing() JointBlock "
    "FinalLayer SelfAttentionContext ContextProcessorBlock ContextProcessor MMDiT OpenAISignatureMMDITWrapper:MMDiT",
)
