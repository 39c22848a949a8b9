"""Names of language models as encoders that node packs import; see :mod:`comfy.placeholders`."""

from comfy.placeholders import placeholders

__getattr__, __dir__ = placeholders(
    __name__,
    "language models as encoders",
    "FixedKV:object Llama2Config:object Mistral3Small24BConfig:object Ministral3_3BConfig:object Qwen25_3BConfig:object "
    "Qwen3_06BConfig:object Qwen3_06B_ACE15_Config:object Qwen3_2B_ACE15_lm_Config:object Qwen3_4B_ACE15_lm_Config:object "
    "Qwen3_4BConfig:object Qwen3_8BConfig:object Qwen3VL_8BConfig:Qwen3_8BConfig Qwen3VL_4BConfig:Qwen3VL_8BConfig "
    "Qwen3VL_32BConfig:Qwen3VL_8BConfig Ovis25_2BConfig:object Qwen25_7BVLI_Config:object Gemma2_2B_Config:object "
    "Gemma3_4B_Config:object Gemma3_4B_Vision_Config:Gemma3_4B_Config Gemma3_12B_Config:object RMSNorm precompute_freqs_cis() "
    "apply_rope() Attention MLP TransformerBlock TransformerBlockGemma2 Llama2_ Gemma3MultiModalProjector BaseLlama:object "
    "BaseGenerate:object BaseQwen3:object Llama2:BaseLlama Mistral3Small24B:BaseLlama Ministral3_3B:BaseLlama Qwen25_3B:BaseLlama "
    "Qwen3_06B:BaseLlama Qwen3_06B_ACE15:BaseLlama Qwen3_2B_ACE15_lm:BaseLlama Qwen3_4B:BaseLlama Qwen3_4B_ACE15_lm:BaseLlama "
    "Qwen3_8B:BaseLlama Ovis25_2B:BaseLlama Qwen25_7BVLI:BaseLlama Gemma2_2B:BaseLlama Gemma3_4B:BaseLlama Gemma3_4B_Vision:BaseLlama "
    "Gemma3_12B:BaseLlama",
)
