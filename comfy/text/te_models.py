"""The kinds of text model, by ComfyUI's names."""

import enum

TEModel = enum.Enum(
    "TEModel",
    "CLIP_L CLIP_H CLIP_G T5_XXL T5_XL T5_BASE LLAMA3_8 T5_XXL_OLD GEMMA_2_2B QWEN25_3B QWEN25_7B BYT5_SMALL_GLYPH GEMMA_3_4B "
    "MISTRAL3_24B MISTRAL3_24B_PRUNED_FLUX2 QWEN3_4B QWEN3_2B GEMMA_3_12B JINA_CLIP_2 QWEN3_8B QWEN3_06B GEMMA_3_4B_VISION QWEN35_08B "
    "QWEN35_2B QWEN35_4B QWEN35_9B QWEN35_27B MINISTRAL_3_3B GEMMA_4_E4B GEMMA_4_E2B GEMMA_4_31B T5_GEMMA GPT_OSS_20B QWEN3VL_4B "
    "QWEN3VL_8B GEMMA_4_12B QWEN3VL_32B UMT5_XXL UMT5_BASE LTX_PROJECTION SAM3_CLIP",
)
TEModel.__doc__ = (
    "What a text encoder's file holds. Those that load are in :data:`comfy.text.kinds.KINDS`; UMT5's, LTX_PROJECTION (what "
    "LTX 2's checkpoints have for the states of a text model) and SAM3_CLIP are kinds of their own here."
)
