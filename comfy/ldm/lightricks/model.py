"""Names of LTX-Video models that node packs import; see :mod:`comfy.placeholders`."""

from comfy.placeholders import placeholders

__getattr__, __dir__ = placeholders(
    __name__,
    "LTX-Video models",
    "LTXRopeType:object LTXFrequenciesPrecision:object get_timestep_embedding() TimestepEmbedding Timesteps "
    "PixArtAlphaCombinedTimestepSizeEmbeddings AdaLayerNormSingle PixArtAlphaTextProjection NormSingleLinearTextProjection "
    "GELU_approx FeedForward apply_rotary_emb() apply_rotary_emb_qk() GuideAttentionMask:object _attention_with_guide_mask() "
    "CrossAttention BasicTransformerBlock compute_prompt_timestep() apply_cross_attention_adaln() get_fractional_positions() "
    "generate_freq_grid_np() generate_freq_grid_pytorch() generate_freqs() freqs_cis_matrix() LTXBaseModel LTXVModel:LTXBaseModel "
    "precompute_freqs_cis()",
)
